"""Sources of questions and traces: files, public datasets, the hub, and generators of problems."""
