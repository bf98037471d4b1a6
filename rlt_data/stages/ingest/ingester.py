"""Taking rows in: each is prepared, compared with what stands already, and handed to the run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import polars as pl

from rlt_data.errors import InputError
from rlt_data.sources.existing import ExistingQuestions, ExistingTraces
from rlt_data.sources.layouts import Layout, find_layout, recognize_layout, rename_columns
from rlt_data.sources.prepare import PreparedRow, PreparedTrace, Preparer
from rlt_data.sources.procedural.reasoning_gym import ReasoningGymPart
from rlt_data.sources.rows import BadRow, Part, RowError, SourceRow
from rlt_data.sources.values import write_json
from rlt_data.stages.runtime.run import StageRun

BATCH_ROWS = 512
CONTENT_CHARACTERS = 1_000_000
"""A rejected row is kept up to this length."""


@dataclass(frozen=True)
class RecognizedPart:
    """A part of the source with its layout: None where no row could be read, and why, where that is known."""

    part: Part
    layout: Layout | None
    error: InputError | None = None


def choose_layouts(
    parts: Sequence[Part], layout: str | None, mapping: Mapping[str, str]
) -> list[RecognizedPart]:
    """Tell the layout of every part before the first row is taken, so that a doubt costs nothing.

    Raises `UsageError` where a layout cannot be told, `InputError` where a source's only part is unreadable.
    """
    known = []
    for part in parts:
        if isinstance(part, ReasoningGymPart):
            known.append(RecognizedPart(part, find_layout("reasoning-gym")))
            continue
        try:
            found = recognize_layout(part.read(), where=part.name, layout=layout, mapping=mapping)
            known.append(RecognizedPart(part, found))
        except InputError as error:
            if len(parts) == 1:
                raise
            known.append(RecognizedPart(part, None, error))
    return known


class Ingester:
    """Takes the rows of one source into one run."""

    def __init__(
        self, run: StageRun, preparer: Preparer, *, mapping: Mapping[str, str], limit: int | None
    ) -> None:
        self._run = run
        self._preparer = preparer
        self._mapping = mapping
        self._limit = limit
        # Counted over the whole source: a run that goes on after a cut judges every row again.
        self._counts: Counter[str] = Counter()
        self._new: dict[str, list[dict[str, Any]]] = {"questions": [], "traces": []}
        self._traces: ExistingTraces | None = None
        self._questions = ExistingQuestions()
        # What other runs brought. Rows of this run are left out: when it goes on after a cut, it reads its
        # source again from the start, and must judge every row as it did before.
        self._others = pl.col("run_id") != run.run_id
        columns = ("question_id", "solution", "answer", "solution_rendered")
        for batch in run.written("questions").filter(self._others).select(columns).collect_batches():
            for question_id, solution, answer, rendered in batch.iter_rows():
                self._questions.add(question_id, solution, answer, rendered=rendered)

    def ingest_parts(self, parts: Sequence[RecognizedPart]) -> None:
        """Take every part in, in order."""
        started, taken = time.monotonic(), 0
        with self._run.track("ingest", self._count_rows(parts)) as task:
            for known in parts:
                if known.error is not None:
                    self._reject(known.part, None, RowError("unreadable", str(known.error)), None)
                    self._hand_over(0)
                    continue
                left = None if self._limit is None else self._limit - taken
                rows = islice(known.part.read(), left)
                while batch := list(islice(rows, BATCH_ROWS)):
                    for row in batch:
                        self._take(known, row)
                    taken += len(batch)
                    self._hand_over(len(batch))
                    task.advance(len(batch))
        rate = round(taken / max(time.monotonic() - started, 1e-9), 1)
        self._run.summary.extra |= {"rows_per_second": rate, **{n: c for n, c in self._counts.items() if c}}
        self._describe(parts)

    def _count_rows(self, parts: Sequence[RecognizedPart]) -> int | None:
        sizes = [known.part.count_rows() for known in parts]
        known_sizes = [size for size in sizes if size is not None]
        if len(known_sizes) < len(sizes):
            return None
        return min(sum(known_sizes), self._limit or sum(known_sizes))

    def _take(self, known: RecognizedPart, row: SourceRow | BadRow) -> None:
        if isinstance(row, BadRow):
            self._reject(known.part, row.number, RowError(row.reason, row.detail), row.content)
            return
        assert known.layout is not None, "a part with a good row has a layout"
        try:
            prepared = self._preparer.prepare(known.layout, rename_columns(row.values, self._mapping))
            self._add_question(known, row, prepared)
        except RowError as error:
            self._reject(known.part, row.number, error, write_json(row.values))
            return
        for trace in prepared.traces:
            self._add_trace(known.part, row, trace)

    def _add_question(self, known: RecognizedPart, row: SourceRow, prepared: PreparedRow) -> None:
        """Add a new question; reject one that stands already, whose traces are then added to that one."""
        layout, solution, rendered = known.layout, prepared.solution, prepared.solution_rendered
        verdict = self._questions.compare(prepared.question_id, solution, prepared.answer, rendered=rendered)
        if verdict != "new":
            reason = "duplicate" if verdict == "same" else "conflicting_duplicate"
            told = "the same" if verdict == "same" else "another one"
            error = RowError(reason, f"the question stands already; its solution here is {told}")
            self._reject(known.part, row.number, error, write_json(row.values), key=prepared.question_id)
            return
        if solution is None or layout is None:
            raise RowError("missing_solution", "the row holds neither a solution nor an answer")
        self._questions.add(prepared.question_id, solution, prepared.answer, rendered=rendered)
        self._counts["solutions_rendered"] += rendered
        part = known.part
        self._new["questions"].append(
            {
                "question_id": prepared.question_id,
                "question": prepared.question,
                "solution": solution,
                "answer": prepared.answer,
                "solution_rendered": rendered,
                "dataset": part.dataset if isinstance(part, ReasoningGymPart) else layout.name,
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
                error = RowError("duplicate_trace", "the same text is a trace of this question already")
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

    def _hand_over(self, rows: int) -> None:
        self._run.count(rows_in=rows)
        for table, new in self._new.items():
            if new:
                self._run.append(table, new)
                self._new[table] = []

    def _describe(self, parts: Sequence[RecognizedPart]) -> None:
        names = Counter(known.layout.name for known in parts if known.layout is not None)
        for name, number in names.items():
            self._run.note(f"layout {name}" + (f" in {number:,} files" if len(parts) > 1 else ""))
        empty = [known.part.name for known in parts if known.layout is None]
        if empty:
            more = f" and {len(empty) - 5} more" if len(empty) > 5 else ""
            self._run.note(f"no row could be read from {', '.join(empty[:5])}{more}")
        repeated = self._counts["rejected_duplicate"] + self._counts["rejected_conflicting_duplicate"]
        if repeated:
            self._run.note(
                f"{repeated:,} rows repeat questions that stand already; traces of theirs go to those"
            )
        unknown = self._counts["traces_without_think"]
        if unknown:
            self._run.note(
                f"{unknown:,} traces hold no tag that tells thinking from solution, so their think is null; "
                "`--untagged think` takes such a trace as a whole"
            )
