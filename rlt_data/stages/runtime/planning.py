"""Plan a stage without running it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlt_data.lake import Lake
from rlt_data.lake.integrity.rows import find_missing_rows
from rlt_data.stages.runtime.contract import StageConfig, StageSummary
from rlt_data.stages.runtime.declaration import StageDeclaration
from rlt_data.stages.runtime.run import Preparation
from rlt_data.stages.runtime.starting import draft_run, find_finished, find_interrupted, list_runs_of


@dataclass(frozen=True)
class StagePlan:
    """Whether a stage's run is finished, was interrupted and would resume, or is new; and that run."""

    state: Literal["finished", "interrupted", "new"]
    run_id: str | None = None
    summary: StageSummary | None = None


def plan_run(lake: Lake, stage: StageDeclaration, config: StageConfig, preparation: Preparation) -> StagePlan:
    """Find out what starting the run of `stage` would do. Nothing is run or written."""
    existing = list_runs_of(lake, draft_run(lake, stage, config, preparation).fingerprint)
    done = find_finished(existing, preparation)
    if done is not None and not find_missing_rows(lake, [done]):
        return StagePlan("finished", done.run_id, StageSummary.model_validate(done.counts))
    unfinished = done or find_interrupted(existing)
    if unfinished is not None:
        return StagePlan("interrupted", unfinished.run_id)
    return StagePlan("new")
