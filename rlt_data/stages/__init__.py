"""The stages of the pipeline, one folder per stage: each reads tables and writes others."""
