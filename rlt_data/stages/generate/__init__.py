"""Generate: teachers write explanations."""

from rlt_data.stages.generate.config import GenerateConfig
from rlt_data.stages.generate.stage import generate

__all__ = ["GenerateConfig", "generate"]
