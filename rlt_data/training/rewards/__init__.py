"""Rewards as ordinary reward functions of TRL."""
