"""Rewrite: a model writes explanations anew, each from one that exists."""

from rlt_data.stages.rewrite.config import RewriteConfig
from rlt_data.stages.rewrite.stage import rewrite

__all__ = ["RewriteConfig", "rewrite"]
