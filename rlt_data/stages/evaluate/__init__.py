"""Evaluate: models answer the questions of tasks, and their answers are graded."""

from rlt_data.stages.evaluate.config import EvaluateConfig
from rlt_data.stages.evaluate.stage import evaluate

__all__ = ["EvaluateConfig", "evaluate"]
