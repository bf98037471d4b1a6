"""Texts to token log-probabilities."""
