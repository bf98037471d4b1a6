"""Spans to token log-probabilities to reward."""
