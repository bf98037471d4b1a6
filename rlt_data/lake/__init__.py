"""Versioned Parquet tables, runs and their lineage, SQL over all of it."""
