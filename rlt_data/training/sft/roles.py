"""Roles of a model in supervised fine-tuning: the table that each learns from, and the texts made of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Protocol, assert_never

import polars as pl

from rlt_data.formats import ConversationFormat, Role
from rlt_data.lake import Lake
from rlt_data.stages.runtime.declaration import StageDeclaration
from rlt_data.stages.runtime.run import StageRun
from rlt_data.stages.runtime.selection import find_run
from rlt_data.training.registry import SFT_STUDENT, SFT_TEACHER
from rlt_data.training.sft.config import SftConfig
from rlt_data.training.sft.examples import (
    Explained,
    SupervisedExample,
    build_student_examples,
    build_teacher_examples,
)


class SftRole(Protocol):
    """One role. To add one: a class here and a case in `find_role`.

    `table` is the table that `where` selects from. What the declaration reads and what `find_source`
    returns decide the result.
    """

    declaration: StageDeclaration
    table: str

    def find_source(self, lake: Lake, config: SftConfig) -> dict[str, str]:
        """Return what determines the rows besides the tables read. Raises `LakeError` if it is missing."""

    def keep_rows(self, rows: pl.LazyFrame, source: dict[str, str]) -> pl.LazyFrame:
        """Keep the rows of `table` that can be learned from."""

    def add_explanations(self, rows: pl.LazyFrame, run: StageRun) -> pl.LazyFrame:
        """Return `rows` with the columns trace_id, question_id and think."""

    def build_examples(
        self,
        format: ConversationFormat,
        tokenizer: Any,
        rows: Iterable[Explained],
        end_token_ids: Collection[int],
    ) -> list[SupervisedExample]:
        """Render and tokenize the texts, with labels on what the model learns to write."""

    def find_closing(self, format: ConversationFormat) -> str:
        """Return the tag that the labels must contain, so that the model learns to finish."""


class TeacherRole:
    """Learns to explain: question and solution in the prompt, the explanation of a trace to write."""

    declaration = SFT_TEACHER
    table = "traces"

    def find_source(self, lake: Lake, config: SftConfig) -> dict[str, str]:
        """Return nothing: the tables determine the rows."""
        return {}

    def keep_rows(self, rows: pl.LazyFrame, source: dict[str, str]) -> pl.LazyFrame:
        """Keep traces whose explanation has a text and is closed."""
        has_text = pl.col("think").str.strip_chars() != ""
        return rows.filter(has_text & ~pl.col("truncated") & (pl.col("state") != "missing_close"))

    def add_explanations(self, rows: pl.LazyFrame, run: StageRun) -> pl.LazyFrame:
        """Return the rows: traces hold their explanations."""
        return rows

    def build_examples(
        self,
        format: ConversationFormat,
        tokenizer: Any,
        rows: Iterable[Explained],
        end_token_ids: Collection[int],
    ) -> list[SupervisedExample]:
        """Build the teacher's texts."""
        return build_teacher_examples(format, tokenizer, rows, end_token_ids=end_token_ids)

    def find_closing(self, format: ConversationFormat) -> str:
        """Return the tag that closes an explanation."""
        return format.teacher.close


class StudentRole:
    """Learns to think and solve: the question in the prompt, a selected explanation and the true solution."""

    declaration = SFT_STUDENT
    table = "distillation"

    def find_source(self, lake: Lake, config: SftConfig) -> dict[str, str]:
        """Return the run of `substitute` whose examples are learned from."""
        return {"distillation": find_run(lake, "substitute", config.distillation).run_id}

    def keep_rows(self, rows: pl.LazyFrame, source: dict[str, str]) -> pl.LazyFrame:
        """Keep the examples of the run."""
        return rows.filter(pl.col("run_id") == source["distillation"])

    def add_explanations(self, rows: pl.LazyFrame, run: StageRun) -> pl.LazyFrame:
        """Add the explanations of the examples' traces."""
        thinks = run.read("traces").select("trace_id", "think")
        return rows.select("trace_id", "question_id").join(thinks, on="trace_id")

    def build_examples(
        self,
        format: ConversationFormat,
        tokenizer: Any,
        rows: Iterable[Explained],
        end_token_ids: Collection[int],
    ) -> list[SupervisedExample]:
        """Build the student's texts."""
        return build_student_examples(format, tokenizer, rows)

    def find_closing(self, format: ConversationFormat) -> str:
        """Return the tag that closes a solution."""
        return format.student.solution_close


def find_role(name: Role) -> SftRole:
    """Return the role of this name."""
    match name:
        case "teacher":
            return TeacherRole()
        case "student":
            return StudentRole()
        case never:
            assert_never(never)
