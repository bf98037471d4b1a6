"""Tiny models that are built and trained on this machine from nothing, for demonstrations and tests."""
