"""`rlt-data rank`."""

from __future__ import annotations

from rlt_data.stages.rank.stage import RankConfig, rank

from ..stage import make_stage_command

command = make_stage_command(
    RankConfig, rank, names={"students": "--student", "filters": "--filter", "lambda_kl": "--lambda"}
)
