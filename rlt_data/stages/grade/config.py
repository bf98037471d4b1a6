"""Options of `rlt-data grade`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from rlt_data.bounds import Processes, Seconds
from rlt_data.stages.runtime.contract import FreeField, Over, RunField, StageConfig
from rlt_data.tasks.grading.base import GraderName


class GradeConfig(StageConfig):
    """Which completions are graded, and by which graders."""

    task: RunField[tuple[str, ...]] = Field(
        (), description="Grade the completions of this task; repeatable. Unset: of all."
    )
    model: RunField[tuple[str, ...]] = Field(
        (), description="Grade the completions of this model; repeatable. Unset: of all."
    )
    where: RunField[Annotated[str | None, Over("evaluations")]] = Field(
        None, description="SQL predicate over evaluations: grade only these."
    )
    grader: RunField[tuple[GraderName, ...]] = Field(
        (), description="Grade with this grader; repeatable. Unset: with those of each task."
    )
    run_code: RunField[bool] = Field(
        False,
        description="Let the grader code run the programs of completions against unit tests, in a sandbox.",
    )
    seconds: FreeField[Seconds] = Field(5.0, description="Time limit of one comparison in seconds.")
    processes: FreeField[Processes | None] = Field(
        None, description="Processes that compare answers; unset: depends on the machine."
    )

    @field_validator("task", "model", "grader", mode="before")
    @classmethod
    def _accept_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value
