"""Verdicts that changed: the grades of a run against those that were the newest before."""

from __future__ import annotations

from typing import Any

import polars as pl

from rlt_data.lake import Lake
from rlt_data.stages.grade.results import keep_newest

_KEY = ("evaluation_id", "grader", "extraction")
_COMPARED = ("verdict", "extracted_answer", "extracted_from", "grader_version")


def list_flips(
    lake: Lake, evaluations: pl.LazyFrame, grades: pl.LazyFrame, run_id: str
) -> list[dict[str, Any]]:
    """List the completions of `evaluations` whose verdict in run `run_id` differs from the newest before it.

    Each has the verdict, answer and grader version, before (`old_...`) and now.
    """
    mine = grades.filter(pl.col("run_id") == run_id).join(
        evaluations.select("evaluation_id"), on="evaluation_id", how="semi"
    )
    before = keep_newest(lake, grades.filter(pl.col("run_id") != run_id)).select(
        *_KEY, pl.col(_COMPARED).name.prefix("old_")
    )
    flips = (
        mine.select(*_KEY, "task", "model", "question_id", "sample_index", "answer", *_COMPARED)
        .join(before, on=_KEY)
        .filter(pl.col("verdict") != pl.col("old_verdict"))
        .sort("task", "model", "question_id", "sample_index", "grader", "extraction")
        .collect(engine="streaming")
    )
    order = (
        "task",
        "model",
        "question_id",
        "sample_index",
        "grader",
        "extraction",
        "old_verdict",
        "verdict",
        "old_extracted_answer",
        "extracted_answer",
        "answer",
        "old_extracted_from",
        "extracted_from",
        "old_grader_version",
        "grader_version",
        "evaluation_id",
    )
    return flips.select(order).to_dicts()
