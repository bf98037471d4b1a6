"""Grade: stored completions get verdicts again, without a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from rlt_data.errors import UsageError
from rlt_data.lake import Lake
from rlt_data.settings import Settings, load_settings
from rlt_data.stages.grade.config import GradeConfig
from rlt_data.stages.grade.flips import list_flips
from rlt_data.stages.grade.grading import GradeWriter, list_grade_ids
from rlt_data.stages.grade.results import list_results
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.selection import keep_rows, select_rows
from rlt_data.stages.runtime.stage import stage
from rlt_data.tasks.definition import load_task
from rlt_data.tasks.grading.base import Grader, GraderName, GraderSettings
from rlt_data.tasks.grading.opening import open_graders


@dataclass(frozen=True)
class TaskGraders:
    """The graders of the completions of one task, and which of them gives the task's score."""

    task: str
    names: tuple[GraderName, ...]
    primary: GraderName


@stage(GradeConfig)
def grade(lake: Lake, config: GradeConfig) -> Preparation:
    """Grade stored completions again, without a model, and list every verdict that changed.

    A completion that a grader of the same version has graded keeps its verdict; `--force` grades all again.
    Earlier grades stay in the lake: the view `grades_latest` has the newest of each completion, grader and
    extraction.

    Raises `UsageError` where there is nothing to grade or a task is unknown and no grader is named,
    `MissingExtraError` where the library of a grader is not installed.
    """
    if lake.table("evaluations").count() == 0:
        raise UsageError("the lake has no evaluations", where=lake.uri, remedy="rlt-data evaluate")
    chosen = _filter(keep_rows(lake, lake.table("evaluations").scan(), "evaluations", config.where), config)
    tasks = chosen.select("task").unique().sort("task").collect(engine="streaming").get_column("task")
    if tasks.is_empty():
        raise UsageError("the selection contains no completion", where=_name_selection(config))
    found = [_find_graders(task, config, load_settings()) for task in tasks]
    settings = GraderSettings(config.seconds, config.processes, run_code=config.run_code)
    versions = {}
    for task in found:
        with open_graders(task.names, settings) as graders:
            versions[task.task] = [[grader.name, grader.version] for grader in graders.values()]

    def execute(run: StageRun) -> None:
        for task in found:
            with open_graders(task.names, settings) as graders:
                _grade_task(run, config, task, graders)
        run.flush()
        selected = _filter(select_rows(run, "evaluations", config.where), config)
        grades = lake.table("grades").scan()
        flips = list_flips(lake, selected, grades, run.run_id)
        run.summary.extra["flipped"] = len(flips)
        run.summary.extra["flips"] = flips
        run.summary.extra["results"] = list_results(lake, selected, grades, run.run_id)

    return Preparation(execute, identity={"graders": versions})


def _find_graders(task: str, config: GradeConfig, settings: Settings) -> TaskGraders:
    """Find the graders of a task's completions: those of the command, else those of its definition."""
    try:
        own: tuple[GraderName, ...] = load_task(task, settings).task.graders
    except UsageError as error:
        if not config.grader:
            raise UsageError(
                f"the completions of {task!r} have no graders: {error.what}",
                where=error.where,
                remedy="name them, such as --grader math, or define the task again",
            ) from error
        own = config.grader
    return TaskGraders(task, config.grader or own, own[0])


def _grade_task(
    run: StageRun, config: GradeConfig, task: TaskGraders, graders: Mapping[GraderName, Grader]
) -> None:
    rows = _filter(select_rows(run, "evaluations", config.where), config).filter(pl.col("task") == task.task)
    total = rows.select(pl.len()).collect(engine="streaming").item()
    # Every attempt after the first was forced.
    again = run.run_id if run.attempt or run.forced else None
    writer = GradeWriter(run, graders, primary=task.primary, again=again)
    with run.track(f"grade {task.task}", total, "completions") as progress:
        writer.grade(rows, list_grade_ids(run, rows), progress, counts=True)


def _filter(rows: pl.LazyFrame, config: GradeConfig) -> pl.LazyFrame:
    for name, wanted in (("task", config.task), ("model", config.model)):
        if wanted:
            rows = rows.filter(pl.col(name).is_in(list(wanted)))
    return rows


def _name_selection(config: GradeConfig) -> str | None:
    parts: Sequence[tuple[str, Any]] = (
        ("where", config.where),
        ("task", list(config.task)),
        ("model", list(config.model)),
    )
    return ", ".join(f"{name} = {value!r}" for name, value in parts if value) or None
