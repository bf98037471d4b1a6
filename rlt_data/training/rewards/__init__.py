"""Rewards as reward functions of TRL: one file per `grpo.reward.type`, and what they share."""
