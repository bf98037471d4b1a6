"""Ready completions as evaluations: rows of a file, or traces of the lake."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from rlt_data.errors import UsageError
from rlt_data.formats import ConversationFormat, ParsedTrace, find_response
from rlt_data.hashing import hash_content
from rlt_data.sources.identity import identify_question
from rlt_data.sources.layouts import Row, rename_columns
from rlt_data.sources.opening import Source, open_source
from rlt_data.sources.rows import BadRow, RowError, SourceRow
from rlt_data.sources.values import read_flag, read_text, write_json
from rlt_data.stages.evaluate.rows import read_completion
from rlt_data.stages.runtime.run import StageRun
from rlt_data.tasks.answers import extract_answer
from rlt_data.tasks.definition import TaskDefinition
from rlt_data.tasks.options import LETTERS
from rlt_data.tasks.questions import find_right, identify_choice

UNKNOWN_PROMPT = "unknown"
"""`prompt_hash` of completions from a file: nothing says what the model was asked."""

PARTS = "parts of the trace"
"""The key under which a trace has its thinking and response, which need not be found in its text again."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "question": ("question", "problem", "prompt"),
    "completion": ("completion", "response", "output", "generation"),
    "answer": ("answer", "gold", "target"),
}
"""The columns that are read, by any of these names; the first that has text counts."""


CompletionRows = Iterator[tuple[str, int | None, dict[str, Any]]]
"""Source, row number and values of each row."""


@dataclass(frozen=True)
class CompletionSource:
    """A file of completions, with a hash of its content and the columns that have other names."""

    source: Source
    mapping: Mapping[str, str]
    identity: str


def open_completions(path: str, mapping: Mapping[str, str]) -> CompletionSource:
    """Open a file or directory of completions. Raises `InputError` where it cannot be read."""
    unknown = [name for name in mapping if name not in {*COLUMNS, "options"}]
    if unknown:
        raise UsageError(
            f"completions have no column {unknown[0]!r}",
            where="--map",
            remedy="map question, completion, answer or options",
        )
    source = open_source(path)
    identity = hash_content("completions", [part.identify() for part in source.parts], dict(mapping))
    return CompletionSource(source, mapping, identity)


def append_completions(
    run: StageRun,
    rows: CompletionRows,
    task: TaskDefinition,
    model: str,
    format: ConversationFormat,
    *,
    limit: int | None,
) -> set[str]:
    """Append every row to `evaluations`; return the keys of all rows, existing ones included.

    Samples of a question are numbered in the order of the rows, and `limit` counts questions.
    """
    numbers: dict[str, int] = {}
    keys: set[str] = set()
    same = (pl.col("task") == task.name) & (pl.col("model") == model)
    stored = run.written("evaluations").filter(same).select("evaluation_id").collect(engine="streaming")
    existing = set(stored.get_column("evaluation_id"))
    for name, number, values in rows:
        try:
            row = _read_row(task, model, format, values)
        except RowError as error:
            run.reject(
                source=name,
                source_row=number,
                reason=error.reason,
                detail=error.detail,
                content=write_json(values)[:1_000_000],
            )
            continue
        question_id = row["question_id"]
        if limit is not None and question_id not in numbers and len(numbers) == limit:
            continue
        index = numbers.get(question_id, 0)
        numbers[question_id] = index + 1
        key = hash_content(
            "ready completion", task.name, model, question_id, index, row["answer"], row["completion"]
        )
        keys.add(key)
        if key in existing:
            continue
        run.count(rows_in=1, truncated=int(row["truncated"]))
        run.append(
            "evaluations",
            [{**row, "evaluation_id": key, "sample_index": index, "source": name, "source_row": number}],
        )
    return keys


def read_file(run: StageRun, opened: CompletionSource) -> CompletionRows:
    """Read the rows of a file of completions; those that cannot be read are rejected."""
    for part in opened.source.parts:
        for row in part.read():
            if isinstance(row, BadRow):
                run.reject(
                    source=part.name,
                    source_row=row.number,
                    reason=row.reason,
                    detail=row.detail,
                    content=row.content,
                )
            elif isinstance(row, SourceRow):
                yield part.name, row.number, rename_columns(row.values, opened.mapping)


def read_traces(traces: pl.LazyFrame, questions: pl.LazyFrame) -> CompletionRows:
    """Read traces of the lake with their questions; their own thinking and solution are kept."""
    columns = ("trace_id", "question_id", "teacher", "completion", "think", "trace_solution", "state")
    asked = questions.select("question_id", "question", "solution", "answer", "metadata")
    joined = (
        traces.select(*columns, "truncated", "sample_index")
        .join(asked, on="question_id")
        .sort("question_id", "teacher", "sample_index", "trace_id")
    )
    for batch in joined.collect_batches(maintain_order=True):
        for row in batch.iter_rows(named=True):
            yield "traces", None, _convert_trace(row)


def _convert_trace(row: Mapping[str, Any]) -> dict[str, Any]:
    completion, solution = row["completion"], row["trace_solution"]
    if solution is not None and solution not in completion:
        completion = f"{completion}\n\n{solution}"
    parsed = ParsedTrace(row["think"], solution, row["state"])
    return {
        **json.loads(row["metadata"] or "{}"),
        "trace_id": row["trace_id"],
        "teacher": row["teacher"],
        "question": row["question"],
        "answer": row["answer"] or extract_answer(row["solution"]),
        "completion": completion,
        "truncated": row["truncated"],
        PARTS: {
            "completion": completion,
            "think": row["think"],
            "response": find_response(completion, parsed),
            "state": row["state"],
        },
    }


def _read_row(
    task: TaskDefinition, model: str, format: ConversationFormat, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Read one row. Raises `RowError` where it has no question or no completion."""
    row = Row(values)
    question, answer = row.take_text(*COLUMNS["question"]), row.take_text(*COLUMNS["answer"])
    completion = _take_completion(row)
    if question is None:
        raise RowError("missing_question", f"none of the columns {', '.join(COLUMNS['question'])} has a text")
    if completion is None:
        raise RowError(
            "missing_completion", f"there is none of the columns {', '.join(COLUMNS['completion'])}"
        )
    parts = row.take(PARTS)
    options = None
    question_id = identify_question(question)
    if task.choices is not None:
        options = _read_options(row)
        answer = LETTERS[find_right(answer, options, "answer")]
        question_id = identify_choice(question, options)
    finish_reason = row.take_text("finish_reason")
    truncated = read_flag(row.take("truncated"))
    return {
        "task": task.name,
        "prompt_hash": UNKNOWN_PROMPT,
        "question_id": question_id,
        "question": question,
        "options": options,
        "answer": answer,
        "metadata": write_json(row.take_rest()),
        "model": model,
        "format": format.name,
        **(parts or read_completion(format, completion)),
        "finish_reason": finish_reason,
        "truncated": finish_reason == "length" if truncated is None else truncated,
    }


def _take_completion(row: Row) -> str | None:
    """Return the first column with a completion, which may be blank: a model may answer nothing."""
    for column in COLUMNS["completion"]:
        value = row.take(column)
        if isinstance(value, str):
            read_text(value, column)  # Raises where it is not valid Unicode.
            return value
        if value is not None:
            raise RowError("wrong_type", f"column {column!r} is not a text: {json.dumps(str(value)[:80])}")
    return None


def _read_options(row: Row) -> list[str]:
    raw = row.take("options")
    if not isinstance(raw, list | tuple) or not 2 <= len(raw) <= len(LETTERS):
        raise RowError("missing_choice", "the column 'options' is not a list of 2 to 26 options")
    options = [read_text(option, "options") for option in raw]
    if any(option is None for option in options):
        raise RowError("missing_choice", "one of the options is blank")
    return [option.strip() for option in options if option is not None]
