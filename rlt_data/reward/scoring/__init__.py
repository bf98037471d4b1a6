"""Scoring: explanations to per-token log-probabilities of teacher and students."""
