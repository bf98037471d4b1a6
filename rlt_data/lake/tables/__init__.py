"""One Delta table: its schema, commits, files and keys."""
