"""The grade stage: completions are graded again without a model, and what flipped is listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlt_data.errors import UsageError
from rlt_data.lake import Lake
from rlt_data.stages.evaluate import EvaluateConfig, evaluate
from rlt_data.stages.grade import GradeConfig, grade

pytest.importorskip("math_verify")

COMPLETIONS = [
    {"question": "a?", "answer": "1/2", "completion": r"<think>x</think> \boxed{0.5}"},
    {"question": "b?", "answer": "8", "completion": r"<think>y</think> \boxed{9}"},
    {"question": "c?", "answer": "7", "completion": "<think>\nit is 7, I think"},
]


def fill(folder: Path, *, model: str = "m") -> Lake:
    lake = Lake(folder / "lake")
    path = folder / "done.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in COMPLETIONS), encoding="utf-8")
    evaluate(lake, EvaluateConfig(model=model, task="own", completions=str(path), processes=1))
    return lake


def make_older(lake: Lake, folder: Path, **changed: Any) -> Lake:
    """Make a lake with the same completions, graded by an older version with another verdict on `a?`."""
    older = Lake(folder / "older")
    evaluations = lake.table("evaluations").scan().collect()
    [first] = evaluations.filter(pl.col("question") == "a?").get_column("evaluation_id")
    flipped = (pl.col("evaluation_id") == first) & (pl.col("grader") == "math")
    grades = (
        lake.table("grades")
        .scan()
        .collect()
        .with_columns(
            pl.lit("0").alias("grader_version"),
            ("old-" + pl.col("grade_id")).alias("grade_id"),
            *(pl.when(flipped).then(pl.lit(v)).otherwise(pl.col(n)).alias(n) for n, v in changed.items()),
        )
    )
    older.table("evaluations").append(evaluations, run_id="test")
    older.table("grades").append(grades, run_id="test")
    return older


def test_what_is_graded_already_keeps_its_verdict(tmp_path: Path) -> None:
    lake = fill(tmp_path)
    summary = grade(lake, GradeConfig(processes=1))
    assert (summary.status, summary.rows_out, summary.extra["flips"]) == ("finished", 0, [])
    assert {row["score"] for row in summary.extra["results"]} == {1 / 3, 2 / 3}


def test_a_new_version_writes_new_rows_and_lists_what_flipped(tmp_path: Path) -> None:
    older = make_older(fill(tmp_path), tmp_path, verdict="wrong", extracted_answer="5")
    before = older.table("grades").count()
    summary = grade(older, GradeConfig(processes=1))
    assert summary.rows_in == 3
    assert older.table("grades").count() == before + 12
    flips = summary.extra["flips"]
    assert summary.extra["flipped"] == len(flips) == 2
    assert {flip["extraction"] for flip in flips} == {"stated", "last"}
    shown = {name: flips[0][name] for name in ("old_verdict", "verdict", "answer", "old_grader_version")}
    assert shown == {"old_verdict": "wrong", "verdict": "correct", "answer": "1/2", "old_grader_version": "0"}
    assert (flips[0]["old_extracted_answer"], flips[0]["extracted_answer"]) == ("5", "0.5")
    # The metrics follow the newest verdicts, and so does the view.
    assert [row["score"] for row in summary.extra["results"]] == [1 / 3, 2 / 3]
    [row] = older.sql(
        "SELECT count(*) AS n, count(*) FILTER (grader_version = '0') AS old FROM grades_latest"
    ).to_pylist()
    assert row == {"n": 12, "old": 0}


def test_force_grades_all_again(tmp_path: Path) -> None:
    lake = fill(tmp_path)
    before = lake.table("grades").count()
    for times in (1, 2):
        summary = grade(lake, GradeConfig(processes=1), force=True)
        assert (summary.rows_out, summary.extra["flips"]) == (12, [])
        assert lake.table("grades").count() == before + 12 * times
    [row] = lake.sql("SELECT count(*) AS n, count(DISTINCT run_id) AS runs FROM grades_latest").to_pylist()
    assert row == {"n": 12, "runs": 1}


def test_another_grader_gives_a_second_opinion(tmp_path: Path) -> None:
    lake = fill(tmp_path)
    summary = grade(lake, GradeConfig(grader="integer", processes=1))
    assert summary.rows_out == 6
    rows = lake.sql(
        "SELECT e.question, a.verdict AS math, b.verdict AS integer FROM grades_latest a "
        "JOIN grades_latest b USING (evaluation_id, extraction) JOIN evaluations e USING (evaluation_id) "
        "WHERE a.grader = 'math' AND b.grader = 'integer' AND extraction = 'stated' "
        "AND a.verdict <> b.verdict"
    ).to_pylist()
    assert [(row["question"], row["math"]) for row in rows] == [("a?", "correct")]
    # The score stays that of the task's own grader.
    assert not any(
        row["primary"] for row in lake.table("grades").scan().filter(grader="integer").collect().to_dicts()
    )


def test_a_selection(tmp_path: Path) -> None:
    lake = fill(tmp_path)
    config = GradeConfig(task="own", model="m", where="question = 'b?'", processes=1)
    assert grade(lake, config, force=True).rows_out == 4
    with pytest.raises(UsageError, match="contains no completion"):
        grade(lake, GradeConfig(model="other"))
    with pytest.raises(UsageError, match="not valid SQL"):
        grade(lake, GradeConfig(where="nonsense = 1"))


def test_an_empty_lake_and_a_task_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no evaluations"):
        grade(Lake(tmp_path / "empty"), GradeConfig())
    lake = fill(tmp_path)
    gone = Lake(tmp_path / "gone")
    rows = lake.table("evaluations").scan().collect().with_columns(pl.lit("gone").alias("task"))
    gone.table("evaluations").append(rows, run_id="test")
    with pytest.raises(UsageError, match="have no graders"):
        grade(gone, GradeConfig())
    summary = grade(gone, GradeConfig(grader=("text",)))
    assert [row["task"] for row in summary.extra["results"]] == ["gone", "gone"]
