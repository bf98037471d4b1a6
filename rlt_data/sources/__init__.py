"""Sources of questions and traces: files, public data sets, the hub, and generators of problems."""
