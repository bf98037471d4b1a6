"""Rank: the traces of each question ordered and selected."""

from rlt_data.stages.rank.stage import RankConfig, rank

__all__ = ["RankConfig", "rank"]
