"""Generators of problems."""
