"""Grade stored completions: rows of `evaluations` in, rows of `grades` out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import polars as pl

from rlt_data.hashing import hash_content
from rlt_data.progress import Task
from rlt_data.stages.runtime.run import StageRun
from rlt_data.tasks.grading.base import Extraction, Grade, Grader, GraderName, Item

EXTRACTIONS: tuple[Extraction, ...] = get_args(Extraction)
BATCH_ROWS = 256
GRADED_COLUMNS = (
    "evaluation_id",
    "task",
    "question_id",
    "question",
    "options",
    "answer",
    "metadata",
    "model",
    "model_revision",
    "sample_index",
    "completion",
    "response",
    "failure",
    "truncated",
)
"""The columns of `evaluations` that grading reads."""


class GradeWriter:
    """Grades the completions of one task with graders, each by both extractions.

    `primary` is the grader of the task's score. `again` is the id of a run that grades anew what is graded.
    """

    def __init__(
        self,
        run: StageRun,
        graders: Mapping[GraderName, Grader],
        *,
        primary: GraderName,
        again: str | None = None,
    ) -> None:
        self._run = run
        self._graders = list(graders.values())
        self._primary = primary
        self._again = again

    def grade(
        self, evaluations: pl.LazyFrame, existing: set[str], progress: Task, *, counts: bool = False
    ) -> None:
        """Append the grades of `evaluations` that are not in `existing`, the ids of grades.

        With `counts`, a completion is an input of the run: it counts with the last of its grades.
        """
        last = (self._graders[-1], EXTRACTIONS[-1])
        for batch in iterate_batches(evaluations.select(GRADED_COLUMNS)):
            rows = list(batch.iter_rows(named=True))
            for grader in self._graders:
                for extraction in EXTRACTIONS:
                    counted = counts and (grader, extraction) == last
                    self._grade_rows(rows, grader, extraction, existing, counted=counted)
            progress.advance(len(rows))

    def identify(self, evaluation_id: str, grader: Grader, extraction: Extraction) -> str:
        """Return the `grade_id` of a completion's grade."""
        return hash_content("grade", evaluation_id, grader.name, grader.version, extraction, self._again)

    def _grade_rows(
        self,
        rows: Sequence[dict[str, Any]],
        grader: Grader,
        extraction: Extraction,
        existing: set[str],
        *,
        counted: bool,
    ) -> None:
        keys = {row["evaluation_id"]: self.identify(row["evaluation_id"], grader, extraction) for row in rows}
        open_rows = [row for row in rows if keys[row["evaluation_id"]] not in existing]
        asked = [make_item(row) for row in open_rows if row["failure"] is None]
        grades = {grade.key: grade for grade in grader.grade(asked, extraction)} if asked else {}
        primary = grader.name == self._primary
        new = []
        for row in open_rows:
            grade = grades.get(row["evaluation_id"]) or _explain_failure(row, grader, extraction)
            new.append(_make_row(row, grade, keys[row["evaluation_id"]], primary=primary))
        if new:
            if counted:
                self._run.count(rows_in=len(new))
            self._run.append("grades", new)


def iterate_batches(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    """Yield rows in batches of at most `BATCH_ROWS`, which bounds what is held and done between commits."""
    for batch in rows.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
        yield from batch.iter_slices(BATCH_ROWS)


def make_item(row: Mapping[str, Any]) -> Item:
    """Make the item to grade of a row of `evaluations`."""
    metadata = json.loads(row["metadata"] or "{}")
    return Item(
        key=row["evaluation_id"],
        completion=row["completion"],
        response=row["response"],
        truncated=row["truncated"],
        question=row["question"],
        answer=row["answer"],
        options=tuple(row["options"] or ()),
        metadata=metadata if isinstance(metadata, dict) else {},
    )


def list_grade_ids(run: StageRun, evaluation_ids: pl.LazyFrame) -> set[str]:
    """List the ids of the grades of evaluations, by their column `evaluation_id`."""
    grades = run.written("grades").select("grade_id", "evaluation_id")
    found = grades.join(evaluation_ids.select("evaluation_id"), on="evaluation_id", how="semi")
    return set(found.select("grade_id").collect(engine="streaming").get_column("grade_id"))


def _explain_failure(row: Mapping[str, Any], grader: Grader, extraction: Extraction) -> Grade:
    """Grade a sample that the model could not be asked."""
    detail = f"the model could not be asked: {row['failure']}"
    key = row["evaluation_id"]
    return Grade(key, grader.name, grader.version, extraction, None, None, "failed", detail)


def _make_row(row: Mapping[str, Any], grade: Grade, grade_id: str, *, primary: bool) -> dict[str, Any]:
    copied = ("evaluation_id", "task", "question_id", "model", "model_revision", "sample_index", "answer")
    return {
        **{name: row[name] for name in copied},
        "grade_id": grade_id,
        "grader": grade.grader,
        "grader_version": grade.grader_version,
        "primary": primary,
        "extraction": grade.extraction,
        "extracted_answer": grade.extracted_answer,
        "extracted_from": grade.extracted_from,
        "verdict": grade.verdict,
        "detail": grade.detail,
    }
