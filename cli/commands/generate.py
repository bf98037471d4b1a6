"""`rlt-data generate`."""

from __future__ import annotations

from rlt_data.stages.generate.stage import GenerateConfig, generate

from ..stage import make_stage_command

command = make_stage_command(GenerateConfig, generate, names={"engine_options": "--engine-option"})
