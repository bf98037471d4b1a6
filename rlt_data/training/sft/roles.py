"""Roles of a model in supervised fine-tuning: the table that each learns from, and the texts made of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol, assert_never

import polars as pl

from rlt_data.errors import LakeError
from rlt_data.formats import (
    ConversationFormat,
    RenderedText,
    Role,
    render_student_prompt,
    render_teacher_prompt,
)
from rlt_data.hashing import hash_content
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
    returns decide the result. `refuses`: a flaw of a text refuses the whole training; otherwise such a text
    is rejected.
    """

    declaration: StageDeclaration
    table: str
    refuses: bool

    def find_source(self, lake: Lake, config: SftConfig) -> dict[str, str]:
        """Return what determines the rows besides the tables read. Raises `LakeError` if it is missing."""

    def keep_rows(self, rows: pl.LazyFrame, source: Mapping[str, str]) -> pl.LazyFrame:
        """Keep the rows of `table` that can be learned from."""

    def list_keys(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Return the rows in their order, with the columns key, trace_id, question_id and reward."""

    def make_reject_key(self, row: Mapping[str, Any]) -> str:
        """Return the key under which a row is rejected."""

    def read_ranking(self, run: StageRun, source: Mapping[str, str]) -> pl.DataFrame:
        """Read how the traces were ranked, as `NextBestTraces` takes it."""

    def build_examples(
        self,
        format: ConversationFormat,
        tokenizer: Any,
        rows: Iterable[Explained],
        end_token_ids: Collection[int],
    ) -> list[SupervisedExample]:
        """Render and tokenize the texts, with labels on what the model learns to write."""

    def render_prompt(self, format: ConversationFormat, tokenizer: Any, row: Explained) -> RenderedText:
        """Render what inference sends."""

    def find_closing(self, format: ConversationFormat) -> str:
        """Return the tag that the labels must contain, so that the model learns to finish."""


class TeacherRole:
    """Learns to explain: question and solution in the prompt, the explanation of a trace to write."""

    declaration = SFT_TEACHER
    table = "traces"
    refuses = False

    def find_source(self, lake: Lake, config: SftConfig) -> dict[str, str]:
        """Return nothing: the tables determine the rows."""
        return {}

    def keep_rows(self, rows: pl.LazyFrame, source: Mapping[str, str]) -> pl.LazyFrame:
        """Keep traces whose explanation has a text and is closed."""
        has_text = pl.col("think").str.strip_chars() != ""
        return rows.filter(has_text & ~pl.col("truncated") & (pl.col("state") != "missing_close"))

    def list_keys(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Return the traces by their ids."""
        columns = {"key": "trace_id", "trace_id": "trace_id", "question_id": "question_id"}
        keys = rows.select(pl.col(old).alias(new) for new, old in columns.items()).sort("trace_id")
        return keys.with_columns(reward=pl.lit(None, dtype=pl.Float64))

    def make_reject_key(self, row: Mapping[str, Any]) -> str:
        """Return a hash of question and explanation."""
        return hash_content(row["question"], row["think"])

    def read_ranking(self, run: StageRun, source: Mapping[str, str]) -> pl.DataFrame:
        """Raise `NotImplementedError`: a teacher's traces have no ranking."""
        raise NotImplementedError

    def build_examples(
        self,
        format: ConversationFormat,
        tokenizer: Any,
        rows: Iterable[Explained],
        end_token_ids: Collection[int],
    ) -> list[SupervisedExample]:
        """Build the teacher's texts."""
        return build_teacher_examples(format, tokenizer, rows, end_token_ids=end_token_ids)

    def render_prompt(self, format: ConversationFormat, tokenizer: Any, row: Explained) -> RenderedText:
        """Render question and solution up to the opened explanation."""
        return render_teacher_prompt(format, tokenizer, row.question, row.solution)

    def find_closing(self, format: ConversationFormat) -> str:
        """Return the tag that closes an explanation."""
        return format.teacher.close


class StudentRole:
    """Learns to think and solve: the question in the prompt, a selected explanation and the true solution."""

    declaration = SFT_STUDENT
    table = "distillation"
    refuses = True

    def find_source(self, lake: Lake, config: SftConfig) -> dict[str, str]:
        """Return the run of `substitute` whose examples are learned from."""
        return {"distillation": find_run(lake, "substitute", config.distillation).run_id}

    def keep_rows(self, rows: pl.LazyFrame, source: Mapping[str, str]) -> pl.LazyFrame:
        """Keep the examples of the run."""
        return rows.filter(pl.col("run_id") == source["distillation"])

    def list_keys(self, rows: pl.LazyFrame) -> pl.LazyFrame:
        """Return the examples in the order of their traces."""
        columns = (pl.col("example_id").alias("key"), "trace_id", "question_id", "reward")
        return rows.select(*columns).sort("trace_id", "key")

    def make_reject_key(self, row: Mapping[str, Any]) -> str:
        """Return the id of the example."""
        return str(row["key"])

    def read_ranking(self, run: StageRun, source: Mapping[str, str]) -> pl.DataFrame:
        """Read the ranking of which `substitute` selected; what it used counts as selected.

        Raises `LakeError` where that run did not record its ranking.
        """
        record = run.lake.run(source["distillation"])
        made_of = record.counts.get("extra", {})
        if "ranking" not in made_of or "ranked_by" not in made_of:
            raise LakeError(
                "the distillation set does not say which ranking it was selected from",
                where=f"run {record.run_id[:12]} of substitute",
                remedy="set sft.over_long to drop or keep, or run substitute again",
            )
        mine = (pl.col("run_id") == made_of["ranking"]) & (pl.col("student") == made_of["ranked_by"])
        used = self.keep_rows(run.read("distillation"), source).select("trace_id", selected=pl.lit(True))
        return (
            run.read("rankings")
            .filter(mine)
            .select("question_id", "trace_id", "rank", "reward")
            .join(used, on="trace_id", how="left")
            .with_columns(pl.col("selected").fill_null(value=False))
            .sort("question_id", "rank")
            .collect()
        )

    def build_examples(
        self,
        format: ConversationFormat,
        tokenizer: Any,
        rows: Iterable[Explained],
        end_token_ids: Collection[int],
    ) -> list[SupervisedExample]:
        """Build the student's texts."""
        return build_student_examples(format, tokenizer, rows)

    def render_prompt(self, format: ConversationFormat, tokenizer: Any, row: Explained) -> RenderedText:
        """Render the question, up to where the student's turn begins."""
        return render_student_prompt(format, tokenizer, row.question)

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
