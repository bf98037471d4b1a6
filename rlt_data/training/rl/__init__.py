"""Reinforcement learning: GRPO by TRL."""
