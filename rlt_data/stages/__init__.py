"""One file a stage: each reads tables and writes a table."""
