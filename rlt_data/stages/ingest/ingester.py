"""Ingest the rows of a source: convert each, compare it with what exists, and append it or reject it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, assert_never

import polars as pl

from rlt_data.errors import InputError
from rlt_data.sources.existing import Comparison, ExistingQuestions, ExistingTraces
from rlt_data.sources.layouts import Layout, find_layout, recognize_layout, rename_columns
from rlt_data.sources.prepare import PreparedRow, PreparedTrace, Preparer
from rlt_data.sources.rows import BadRow, Part, RowError, SourceRow
from rlt_data.sources.values import write_json
from rlt_data.stages.runtime.run import StageRun

BATCH_ROWS = 512
CONTENT_CHARACTERS = 1_000_000
"""The content of a rejected row is stored up to this length."""


@dataclass(frozen=True)
class RecognizedPart:
    """A part of the source with its layout.

    `layout` is None where no row could be read; `error` is the error, if one was raised. `stamp` was taken
    before anything was read.
    """

    part: Part
    layout: Layout | None
    error: InputError | None = None
    stamp: object = None

    def check_unchanged(self) -> None:
        """Raise `InputError` where the part was written to since it was recognized."""
        if self.part.take_stamp() != self.stamp:
            raise explain_change(self.part)


def explain_change(part: Part) -> InputError:
    """Return the error for a part that was written to while it was read."""
    return InputError(
        "the source was changed while it was read",
        where=part.name,
        remedy="run the command again when no other program writes to it; the run stays open until then",
    )


def choose_layouts(
    parts: Sequence[Part], layout: str | None, mapping: Mapping[str, str], stamps: Sequence[object]
) -> list[RecognizedPart]:
    """Choose the layout of every part before the first row is ingested, so that nothing is half done.

    `stamps` are those of the parts, taken before. Raises `UsageError` where a layout cannot be recognized,
    `InputError` where the only part of a source is unreadable.
    """
    recognized = []
    for part, stamp in zip(parts, stamps, strict=True):
        if part.layout is not None:
            recognized.append(RecognizedPart(part, find_layout(part.layout), stamp=stamp))
            continue
        try:
            found = recognize_layout(part.read(), where=part.name, layout=layout, mapping=mapping)
            recognized.append(RecognizedPart(part, found, stamp=stamp))
        except InputError as error:
            if len(parts) == 1:
                raise
            recognized.append(RecognizedPart(part, None, error, stamp))
    return recognized


class Ingester:
    """Writes the rows of one source into the tables of one run."""

    def __init__(
        self, run: StageRun, preparer: Preparer, *, mapping: Mapping[str, str], limit: int | None
    ) -> None:
        self._run = run
        self._preparer = preparer
        self._mapping = mapping
        self._limit = limit
        # Counted over the whole source: a run that resumes processes every row again.
        self._counts: Counter[str] = Counter()
        self._new: dict[str, list[dict[str, Any]]] = {"questions": [], "traces": []}
        self._traces: ExistingTraces | None = None
        self._questions = ExistingQuestions()
        # Rows of other runs only. A run that resumes reads its source again from the start, and must
        # decide on every row as it did before.
        self._others = pl.col("run_id") != run.run_id
        columns = ("question_id", "solution", "answer", "solution_rendered")
        for batch in run.written("questions").filter(self._others).select(columns).collect_batches():
            for question_id, solution, answer, rendered in batch.iter_rows():
                self._questions.add(question_id, solution, answer, rendered=rendered)

    def ingest_parts(self, parts: Sequence[RecognizedPart]) -> None:
        """Ingest every part, in order, up to the limit of rows."""
        started, done = time.monotonic(), 0
        with self._run.track("ingest", self._count_rows(parts)) as task:
            for recognized in parts:
                if recognized.error is not None:
                    self._reject(recognized.part, None, RowError("unreadable", str(recognized.error)), None)
                    self._append_new(0)
                    continue
                left = None if self._limit is None else self._limit - done
                rows = islice(recognized.part.read(), left)
                while batch := list(islice(rows, BATCH_ROWS)):
                    # Before its rows count: what looks damaged may be half of what is being written.
                    recognized.check_unchanged()
                    for row in batch:
                        self._process_row(recognized, row)
                    done += len(batch)
                    self._append_new(len(batch))
                    task.advance(len(batch))
        rate = round(done / max(time.monotonic() - started, 1e-9), 1)
        self._run.summary.extra |= {"rows_per_second": rate, **{n: c for n, c in self._counts.items() if c}}
        self._add_notes(parts)

    def _count_rows(self, parts: Sequence[RecognizedPart]) -> int | None:
        sizes = [recognized.part.count_rows() for recognized in parts]
        stated = [size for size in sizes if size is not None]
        if len(stated) < len(sizes):
            return None
        return min(sum(stated), self._limit or sum(stated))

    def _process_row(self, recognized: RecognizedPart, row: SourceRow | BadRow) -> None:
        part = recognized.part
        if isinstance(row, BadRow):
            self._reject(part, row.number, RowError(row.reason, row.detail), row.content)
            return
        assert recognized.layout is not None, "a part with a good row has a layout"
        try:
            prepared = self._preparer.prepare(recognized.layout, rename_columns(row.values, self._mapping))
            self._add_question(part, recognized.layout, row, prepared)
        except RowError as error:
            self._reject(part, row.number, error, write_json(row.values))
            return
        for trace in prepared.traces:
            self._add_trace(part, row, trace)

    def _add_question(self, part: Part, layout: Layout, row: SourceRow, prepared: PreparedRow) -> None:
        """Add a new question; reject one that exists. Its traces are then added to the existing one."""
        solution, rendered = prepared.solution, prepared.solution_rendered
        comparison = self._questions.compare(
            prepared.question_id, solution, prepared.answer, rendered=rendered
        )
        repetition = _explain_repetition(comparison)
        if repetition is not None:
            self._reject(part, row.number, repetition, write_json(row.values), key=prepared.question_id)
            return
        if solution is None:
            raise RowError("missing_solution", "the row has neither a solution nor an answer")
        self._questions.add(prepared.question_id, solution, prepared.answer, rendered=rendered)
        self._counts["solutions_rendered"] += rendered
        self._new["questions"].append(
            {
                "question_id": prepared.question_id,
                "question": prepared.question,
                "solution": solution,
                "answer": prepared.answer,
                "solution_rendered": rendered,
                "dataset": part.dataset or layout.name,
                "source": part.name,
                "source_row": row.number,
                "metadata": prepared.metadata,
            }
        )

    def _add_trace(self, part: Part, row: SourceRow, trace: PreparedTrace) -> None:
        if self._traces is None:
            others = self._run.written("traces").filter(self._others).select("trace_id").collect()
            self._traces = ExistingTraces(others.get_column("trace_id"))
        error, index = trace.problem, None
        if error is None:
            index = self._traces.add(trace.trace_id, trace.values["question_id"])
            if index is None:
                error = RowError("duplicate_trace", "this question already has a trace with the same text")
        if error is not None:
            content = write_json(row.values)
            self._reject(part, row.number, error, content, key=trace.trace_id, kind="traces")
            return
        self._counts[f"traces_{trace.values['state']}"] += 1
        self._counts["traces_without_think"] += trace.values["think"] is None
        self._new["traces"].append({**trace.values, "sample_index": index})

    def _reject(
        self,
        part: Part,
        number: int | None,
        error: RowError,
        content: str | None,
        *,
        key: str | None = None,
        kind: str = "questions",
    ) -> None:
        self._counts[f"{kind}_rejected"] += 1
        self._counts[f"rejected_{error.reason}"] += 1
        if content is not None and len(content) > CONTENT_CHARACTERS:
            left_out = len(content) - CONTENT_CHARACTERS
            content = f"{content[:CONTENT_CHARACTERS]}... ({left_out:,} more characters)"
        self._run.reject(
            source=part.name,
            source_row=number,
            reason=error.reason,
            detail=error.detail,
            content=content,
            key=key,
        )

    def _append_new(self, rows_in: int) -> None:
        """Append the new rows to their tables, and count the source rows that they came from."""
        self._run.count(rows_in=rows_in)
        for table, new in self._new.items():
            if new:
                self._run.append(table, new)
                self._new[table] = []

    def _add_notes(self, parts: Sequence[RecognizedPart]) -> None:
        names = Counter(found.layout.name for found in parts if found.layout is not None)
        for name, number in names.items():
            files = "1 file" if number == 1 else f"{number:,} files"
            self._run.note(f"layout {name}" + (f" in {files}" if len(parts) > 1 else ""))
        empty = [found.part.name for found in parts if found.layout is None]
        if empty:
            more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
            self._run.note(f"no row could be read from {', '.join(empty[:5])}{more}")
        repeated = self._counts["rejected_duplicate"] + self._counts["rejected_conflicting_duplicate"]
        if repeated:
            self._run.note(
                f"repeated questions: {repeated:,}; their new traces were added to the existing questions"
            )
        untagged = self._counts["traces_without_think"]
        if untagged:
            self._run.note(
                f"traces without tags: {untagged:,}; nothing separates thinking from solution, so their "
                "think is null; use `--untagged think` to take the whole text as thinking"
            )


def _explain_repetition(comparison: Comparison) -> RowError | None:
    """Return the reject of a question that exists already; None for a new one."""
    match comparison:
        case "new":
            return None
        case "same":
            return RowError("duplicate", "the question already exists, with the same solution")
        case "differs":
            return RowError("conflicting_duplicate", "the question already exists, with another solution")
        case _:
            assert_never(comparison)
