"""Compare: scores of models on tasks, and their paired differences on the same questions."""

from rlt_data.stages.compare.config import CompareConfig
from rlt_data.stages.compare.stage import compare

__all__ = ["CompareConfig", "compare"]
