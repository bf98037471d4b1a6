"""`rlt-data substitute`."""

from __future__ import annotations

from rlt_data.stages.substitute.stage import SubstituteConfig, substitute

from ..stage import make_stage_command

command = make_stage_command(SubstituteConfig, substitute)
