"""Teacher and student training."""
