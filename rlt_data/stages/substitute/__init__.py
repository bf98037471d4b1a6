"""Substitute: distillation examples with the true solution."""

from rlt_data.stages.substitute.config import SubstituteConfig
from rlt_data.stages.substitute.stage import substitute

__all__ = ["SubstituteConfig", "substitute"]
