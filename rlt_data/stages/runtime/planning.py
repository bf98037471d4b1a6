"""What a stage would do, without doing it: `open_run` tells its plan and stops there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from rlt_data.errors import RltDataError
from rlt_data.lake import Lake, RunRecord
from rlt_data.stages.runtime.contract import StageConfig, StageSummary

PlannedState = Literal["finished", "interrupted", "new"]

_PLANNING: ContextVar[bool] = ContextVar("planning", default=False)


@dataclass(frozen=True)
class StagePlan:
    """Whether a stage's run finished before, was cut off and goes on, or is new; and that run."""

    state: PlannedState
    run_id: str | None = None
    summary: StageSummary | None = None


class PlanMadeError(RltDataError):
    """Carries a plan out of a stage that was only asked for it; never reaches a user."""

    def __init__(self, plan: StagePlan) -> None:
        super().__init__("the stage was only planned")
        self.plan = plan


def plan_stage(stage: Callable[..., StageSummary], lake: Lake, config: StageConfig) -> StagePlan:
    """Ask a stage what it would do. Models are resolved and inputs counted; nothing is run or written.

    Raises what the stage itself raises before its run opens, such as `ModelError` for an unknown model.
    """
    try:
        with _plan_only():
            stage(lake, config)
    except PlanMadeError as made:
        return made.plan
    raise AssertionError(f"{stage.__name__} did not open a run")


def stop_when_planning(records: Sequence[RunRecord], done: RunRecord | None) -> None:
    """Leave the stage with its plan, by `PlanMadeError`, where only that was asked for.

    `records` are the runs of its fingerprint, in the order of their attempts; `done` is the one whose
    result stands, if any.
    """
    if not _PLANNING.get():
        return
    if done is not None:
        plan = StagePlan("finished", done.run_id, StageSummary.model_validate(done.counts))
    elif records and not records[-1].finished:
        plan = StagePlan("interrupted", records[-1].run_id)
    else:
        plan = StagePlan("new")
    raise PlanMadeError(plan)


@contextmanager
def _plan_only() -> Iterator[None]:
    token = _PLANNING.set(True)
    try:
        yield
    finally:
        _PLANNING.reset(token)
