"""Reward: rewards derived again from stored token scores."""

from rlt_data.stages.reward.stage import RewardConfig, reward

__all__ = ["RewardConfig", "reward"]
