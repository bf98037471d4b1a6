"""Substitute: distillation examples with the true solution."""

from rlt_data.stages.substitute.stage import SubstituteConfig, substitute

__all__ = ["SubstituteConfig", "substitute"]
