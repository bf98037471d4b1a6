"""One Delta table: schema, commits, files, keys."""
