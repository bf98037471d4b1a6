"""`rlt-data score`."""

from __future__ import annotations

from rlt_data.stages.score.stage import ScoreConfig, score

from ..stage import make_stage_command

command = make_stage_command(
    ScoreConfig,
    score,
    names={"students": "--student", "reward.lambda_kl": "--lambda", "backend_options": "--backend-option"},
)
