"""Tiny models that are built and trained from scratch on this machine, for demos and tests."""
