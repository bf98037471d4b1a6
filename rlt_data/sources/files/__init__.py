"""Data files and directories of them, read as rows."""
