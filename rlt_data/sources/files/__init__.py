"""Files of problems, read as rows."""
