"""Distillation examples with their question and trace: the columns of every form, read in order."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl
import pyarrow as pa

from rlt_data.lake import RunRecord
from rlt_data.progress import Task
from rlt_data.schemas import MESSAGES
from rlt_data.stages.export.config import ExportConfig
from rlt_data.stages.runtime.run import StageRun
from rlt_data.stages.runtime.selection import limit_rows, select_rows

READ_ROWS = 4_096

TEXT = pa.string()
EXAMPLE_SCHEMA = pa.schema(
    [
        pa.field(name, kind)
        for name, kind in (
            ("example_id", TEXT),
            ("question_id", TEXT),
            ("trace_id", TEXT),
            ("prompt", TEXT),
            ("completion", TEXT),
            ("text", TEXT),
            ("question", TEXT),
            ("think", TEXT),
            ("solution", TEXT),
            ("answer", TEXT),
            ("rank", pa.int32()),
            ("reward", pa.float64()),
            ("prompt_tokens", pa.int32()),
            ("total_tokens", pa.int32()),
            ("over_context", pa.bool_()),
            ("stands_in_for", TEXT),
            ("format", TEXT),
            ("tokenizer", TEXT),
            ("teacher", TEXT),
            ("teacher_model", TEXT),
            ("teacher_revision", TEXT),
            ("dataset", TEXT),
            ("source", TEXT),
            ("source_row", pa.int64()),
        )
    ]
)
"""The columns of an exported example, in order; `prompt` + `completion` = `text`."""


def list_examples(run: StageRun, config: ExportConfig, source: RunRecord) -> pl.Series:
    """List the ids of the selected examples of the run `source`, question by question, by rank."""
    mine = select_rows(run, "distillation", config.where).filter(pl.col("run_id") == source.run_id)
    order = ["question_id", "rank", "example_id"]
    first = limit_rows(mine, config.limit, key="example_id", order=order)
    return first.select(order).sort(order).collect().get_column("example_id")


def read_examples(run: StageRun, ids: pl.Series, task: Task) -> Iterator[pa.Table]:
    """Read examples in the order of `ids`: the columns of `EXAMPLE_SCHEMA` and `messages`."""
    questions = run.read("questions").select(
        "question_id", "question", "solution", "answer", "dataset", "source", "source_row"
    )
    traces = run.read("traces").select("trace_id", "think", "teacher", "teacher_model", "teacher_revision")
    kept = [
        name for name in EXAMPLE_SCHEMA.names if name in run.lake.table("distillation").schema.arrow.names
    ]
    for start in range(0, len(ids), READ_ROWS):
        wanted = ids.slice(start, READ_ROWS)
        examples = run.read("distillation").filter(pl.col("example_id").is_in(wanted.to_list()))
        rows = (
            pl.LazyFrame({"example_id": wanted})
            .join(
                examples.select(*kept, "messages", "completion_start"), on="example_id", maintain_order="left"
            )
            .join(questions, on="question_id", how="left", maintain_order="left")
            .join(traces, on="trace_id", how="left", maintain_order="left")
            .collect()
        )
        rows = _fill_completion_start(rows).with_columns(
            pl.col("text").str.slice(0, pl.col("completion_start")).alias("prompt"),
            pl.col("text").str.slice(pl.col("completion_start")).alias("completion"),
            # Folders of the machine that made it are dropped; a file's name may be informative.
            *(_drop_folders(name) for name in ("tokenizer", "teacher_model", "source")),
        )
        table = rows.select(*EXAMPLE_SCHEMA.names, "messages").to_arrow()
        yield table.cast(pa.schema([*EXAMPLE_SCHEMA, pa.field("messages", MESSAGES)]))
        task.advance(rows.height)


def _fill_completion_start(rows: pl.DataFrame) -> pl.DataFrame:
    """Find where the assistant's turn begins in examples of version 0.1, which do not store it."""
    if not rows.get_column("completion_start").null_count():
        return rows
    stored = rows.select("completion_start", "text", pl.col("messages").list.last().struct.field("content"))
    starts = [text.rindex(content) if start is None else start for start, text, content in stored.iter_rows()]
    return rows.with_columns(pl.Series("completion_start", starts, dtype=pl.Int32))


def _drop_folders(name: str) -> pl.Expr:
    column = pl.col(name)
    return (
        pl.when(column.str.starts_with("/"))
        .then(column.str.split("/").list.last())
        .otherwise(column)
        .alias(name)
    )
