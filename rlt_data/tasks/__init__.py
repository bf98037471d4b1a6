"""Answers: extraction and verification."""
