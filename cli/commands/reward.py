"""`rlt-data reward`."""

from __future__ import annotations

from rlt_data.stages.reward.stage import RewardConfig, reward

from ..stage import make_stage_command

command = make_stage_command(RewardConfig, reward, names={"reward.lambda_kl": "--lambda"})
