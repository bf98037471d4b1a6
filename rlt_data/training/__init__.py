"""Training of teachers."""
