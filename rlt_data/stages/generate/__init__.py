"""Generate: teachers write explanations."""

from rlt_data.stages.generate.stage import GenerateConfig, generate

__all__ = ["GenerateConfig", "generate"]
