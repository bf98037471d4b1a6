"""Rank: the traces of each question ordered and selected."""

from rlt_data.stages.rank.config import RankConfig, RankingReward
from rlt_data.stages.rank.stage import rank

__all__ = ["RankConfig", "RankingReward", "rank"]
