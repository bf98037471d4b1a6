"""Options of `rlt-data compare`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlt_data.bounds import Count, Seed
from rlt_data.stages.runtime.contract import Over, RunField, StageConfig
from rlt_data.tasks.grading.base import Extraction, GraderName


class CompareConfig(StageConfig):
    """Which models are compared, on which tasks, by which verdicts."""

    models: RunField[tuple[str, ...]] = Field(
        (),
        description="Models by the names under which they were evaluated, or runs of evaluate by their ids. "
        "Default: all models with evaluations.",
    )
    baseline: RunField[str | None] = Field(
        None, description="Model or run that the others are compared with; unset: the first one."
    )
    tasks: RunField[tuple[str, ...]] = Field(
        (), description="Compare on this task; repeatable; unset: all tasks of these models."
    )
    extraction: RunField[Extraction] = Field(
        "stated",
        description="Verdicts on the answer stated after the thinking, or on the last one anywhere.",
    )
    grader: RunField[GraderName | None] = Field(
        None, description="Use the verdicts of this grader; unset: of each task's own."
    )
    where: RunField[Annotated[str | None, Over("evaluations")]] = Field(
        None, description="SQL predicate over evaluations: use only these."
    )
    resamples: RunField[Count] = Field(10_000, description="Number of resamples of a bootstrap interval.")
    seed: RunField[Seed] = Field(0, description="Seed of the bootstrap.")
