"""The results of an evaluation, one a model, task and extraction, from completions and their grades."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import polars as pl

from rlt_data.lake import Lake
from rlt_data.lake.runs import sort_by_end
from rlt_data.stages.grade.grading import EXTRACTIONS
from rlt_data.tasks.grading.base import Extraction
from rlt_data.tasks.metrics import summarize_task

_SETTINGS = ("format", "temperature", "top_p", "top_k", "max_tokens", "prompt_hash")
_COLUMNS = (
    "evaluation_id",
    "task",
    "model",
    "question_id",
    "sample_index",
    "options",
    "truncated",
    "completion_tokens",
    "engine",
    *_SETTINGS,
)


def list_results(
    lake: Lake, evaluations: pl.LazyFrame, grades: pl.LazyFrame, run_id: str
) -> list[dict[str, Any]]:
    """List the results of some rows of `evaluations`, as JSON values: scores, intervals, counts, settings.

    Of several grades of a completion by the task's grader, the newest counts: that of the run `run_id`, which
    is at work, before all others.
    """
    rows = evaluations.select(_COLUMNS).collect(engine="streaming")
    primary = grades.filter("primary").join(
        rows.lazy().select("evaluation_id"), on="evaluation_id", how="semi"
    )
    newest = keep_newest(lake, primary, run_id).collect(engine="streaming")
    graded = rows.join(
        newest.select(
            "evaluation_id",
            "extraction",
            "extracted_answer",
            "answer",
            "verdict",
            (pl.col("grader") + " " + pl.col("grader_version")).alias("grader"),
        ),
        on="evaluation_id",
    )
    results = []
    for (task, model), group in sorted(graded.partition_by("task", "model", as_dict=True).items()):
        for extraction in EXTRACTIONS:
            mine = group.filter(pl.col("extraction") == extraction)
            if mine.height:
                results.append(_describe(str(task), str(model), extraction, mine))
    return results


def keep_newest(lake: Lake, grades: pl.LazyFrame, run_id: str | None = None) -> pl.LazyFrame:
    """Keep the newest grade of each completion, grader and extraction.

    It is that of the run `run_id`, else that of the run that finished last.
    """
    finished = sort_by_end(lake, [run for run in lake.runs() if run.finished and run.run_id != run_id])
    runs = [run.run_id for run in finished] + ([] if run_id is None else [run_id])
    order = pl.LazyFrame(
        {"run_id": runs, "_run": range(len(runs))}, schema={"run_id": pl.String, "_run": pl.Int64}
    )
    return (
        grades.join(order, on="run_id", how="left")
        .sort("_run", "grade_id", descending=[True, False], nulls_last=True)
        .unique(["evaluation_id", "grader", "extraction"], keep="first", maintain_order=True)
        .drop("_run")
    )


def _describe(task: str, model: str, extraction: Extraction, rows: pl.DataFrame) -> dict[str, Any]:
    found = summarize_task(rows)
    settings = {name: _name_values(rows, name) for name in _SETTINGS}
    return {
        "task": task,
        "model": model,
        "extraction": extraction,
        "grader": _name_values(rows, "grader"),
        "questions": found.questions,
        "completions": found.completions,
        "samples": list(found.samples),
        "score": found.score.value,
        "low": found.score.low,
        "high": found.score.high,
        "interval": found.score.method,
        "pass_at": {str(item.k): item.value for item in found.pass_at},
        "pass_at_left_out": {str(item.k): item.left_out for item in found.pass_at if item.left_out},
        "majority": found.majority,
        "verdicts": dict(found.verdicts),
        "truncated": found.truncated,
        "low_bound": found.low_bound,
        "high_bound": found.high_bound,
        "completion_tokens": found.completion_tokens,
        "engines": list(found.engines),
        **settings,
        "letters": [asdict(share) for share in found.letters],
    }


def _name_values(rows: pl.DataFrame, name: str) -> Any:
    """Return the value of a column that all rows share; of several, a list."""
    values = rows.get_column(name).unique().sort().to_list()
    return values[0] if len(values) == 1 else values
