"""The graded completions that are compared: of each model and task one setting, and each graded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from rlt_data.stages.compare.config import CompareConfig
from rlt_data.stages.compare.models import SHORT_ID, ComparedModel
from rlt_data.stages.runtime.run import StageRun
from rlt_data.stages.runtime.selection import select_rows

SETTINGS = (
    "model_revision",
    "prompt_hash",
    "format",
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
)
"""Completions that differ in one of these are not samples of one distribution."""

COMPARED_SETTINGS = SETTINGS[1:]
"""What should be equal for two models."""


@dataclass(frozen=True)
class ModelRows:
    """The graded completions of one model on one task, one row each: under one setting, the newest.

    Columns: `evaluation_id`, `question_id`, `sample_index`, `engine`, `source`, `truncated`, `verdict` and
    `grader`, the grader with its version.
    """

    model: ComparedModel
    task: str
    settings: dict[str, object]
    rows: pl.DataFrame


def read_model_rows(
    run: StageRun,
    config: CompareConfig,
    models: Sequence[ComparedModel],
    *,
    evaluate_runs: Sequence[str],
    grade_runs: Sequence[str],
) -> list[ModelRows]:
    """Read the graded completions of each model and task, sorted by task, then in the order of `models`.

    `evaluate_runs` and `grade_runs` are the finished runs that wrote evaluations and grades, the newest last.
    Of several settings under which a model was evaluated, the newest counts, and so does the newest grade;
    what is left out is noted.
    """
    columns = [
        "evaluation_id",
        "source",
        "task",
        "question_id",
        "model",
        "sample_index",
        "engine",
        "truncated",
        "run_id",
    ]
    evaluations = (
        select_rows(run, "evaluations", config.where)
        .filter(pl.col("model").is_in({model.name for model in models}))
        .filter(pl.col("task").is_in(config.tasks) if config.tasks else pl.lit(True))
        .select(*columns, *SETTINGS)
        .join(_number_runs(evaluate_runs), on="run_id", how="left")
        .with_columns(pl.col("_run").fill_null(-1))
        .collect(engine="streaming")
    )
    run.count(rows_in=evaluations.height)
    chosen = []
    for model in models:
        mine = evaluations.filter(pl.col("model") == model.name)
        for task in sorted(mine.get_column("task").unique()):
            found = _choose_setting(run, model, task, mine.filter(pl.col("task") == task))
            if found is not None:
                chosen.append(found)
    grades = _read_grades(run, config, chosen, grade_runs)
    order = {model: index for index, model in enumerate(models)}
    graded = [_add_grades(run, config, part, grades) for part in chosen]
    return sorted(
        (part for part in graded if part.rows.height), key=lambda part: (part.task, order[part.model])
    )


def _number_runs(runs: Sequence[str]) -> pl.LazyFrame:
    return pl.LazyFrame(
        {"run_id": list(runs), "_run": list(range(len(runs)))}, schema={"run_id": pl.String, "_run": pl.Int64}
    )


def _choose_setting(run: StageRun, model: ComparedModel, task: str, rows: pl.DataFrame) -> ModelRows | None:
    """Keep the rows of one setting, that of the named run or the newest, and the newest of each sample."""
    settings = (
        rows.group_by(SETTINGS)
        .agg(
            pl.col("_run").max(),
            pl.len().alias("_rows"),
            (pl.col("run_id") == (model.run_id or "")).any().alias("_named"),
            pl.col("run_id").sort_by("_run", "run_id").last().alias("_newest"),
        )
        .sort("_named", "_run", "_rows", *SETTINGS, descending=[True] * (3 + len(SETTINGS)))
    )
    first = settings.row(0, named=True)
    if model.run_id is not None and not first["_named"]:
        return None  # The run did not evaluate this task.
    setting = {name: first[name] for name in SETTINGS}
    if settings.height > 1:
        which = "that of the named run" if model.run_id else "the newest"
        differing = [name for name in SETTINGS if settings.get_column(name).n_unique() > 1]
        run.note(
            f"{task}: {model.label} was evaluated under {settings.height} settings, which differ in "
            f"{', '.join(differing)}; {which} is compared, of run {first['_newest'][:SHORT_ID]} "
            f"({describe_settings(setting, differing)})"
        )
    kept = rows.filter(pl.all_horizontal(pl.col(name).eq_missing(pl.lit(setting[name])) for name in SETTINGS))
    if kept.filter(pl.col("_run") < 0).height:
        run.note(f"{task}: some evaluations of {model.label} come from runs that are not finished")
    newest = kept.sort("_run", "evaluation_id", descending=[True, False]).unique(
        ["question_id", "sample_index"], keep="first", maintain_order=True
    )
    if newest.height < kept.height:
        run.note(
            f"{task}: {kept.height - newest.height} completions of {model.label} were superseded: of several "
            "with the same question and sample number, that of the newest finished run is used"
        )
    return ModelRows(model, task, setting, newest.drop("_run", *SETTINGS))


def describe_settings(settings: dict[str, object], names: Sequence[str]) -> str:
    """Write the values of some settings; hashes are shortened."""
    shown = []
    for name in names:
        value = settings[name]
        text = f"{value:g}" if isinstance(value, float) else str(value)
        shown.append(f"{name} {text[:SHORT_ID] if name in ('prompt_hash', 'model_revision') else text}")
    return ", ".join(shown)


def _read_grades(
    run: StageRun, config: CompareConfig, chosen: Sequence[ModelRows], grade_runs: Sequence[str]
) -> pl.DataFrame:
    """Read one verdict of each evaluation: the newest of the requested grader and extraction."""
    ids = pl.concat([part.rows.select("evaluation_id") for part in chosen]) if chosen else None
    if ids is None:
        return pl.DataFrame(schema=dict.fromkeys(["evaluation_id", "verdict", "grader"], pl.String))
    wanted = pl.col("primary") if config.grader is None else pl.col("grader") == config.grader
    return (
        run.read("grades")
        .filter(wanted & (pl.col("extraction") == config.extraction))
        .join(ids.lazy(), on="evaluation_id", how="semi")
        .join(_number_runs(grade_runs), on="run_id", how="left")
        .select(
            "evaluation_id",
            "verdict",
            (pl.col("grader") + " " + pl.col("grader_version")).alias("grader"),
            pl.col("_run").fill_null(-1),
            "grade_id",
        )
        .collect(engine="streaming")
        .sort("_run", "grade_id", descending=[True, False])
        .unique("evaluation_id", keep="first", maintain_order=True)
        .drop("_run", "grade_id")
    )


def _add_grades(run: StageRun, config: CompareConfig, part: ModelRows, grades: pl.DataFrame) -> ModelRows:
    rows = part.rows.join(grades, on="evaluation_id", how="inner", maintain_order="left")
    missing = part.rows.height - rows.height
    if missing:
        by = f" by {config.grader}" if config.grader else ""
        run.count(without_grade=missing)
        run.note(
            f"{part.task}: {missing} completions of {part.model.label} have no grade{by} with the extraction "
            f"{config.extraction} and are left out (rlt-data grade)"
        )
    return ModelRows(part.model, part.task, part.settings, rows)
