"""Problems made by generators."""
