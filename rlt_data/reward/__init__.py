"""Rewards: explanations to token log-probabilities to reward."""
