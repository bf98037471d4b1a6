"""One run at work: it reads pinned versions, commits its rows exactly once, and records how it ended.

Each process that works on a run is one session of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import polars as pl
import pyarrow as pa

from rlt_data.errors import LakeError
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake, RunRecord
from rlt_data.lake.fingerprint import NamedModel
from rlt_data.lake.runs import commit_state
from rlt_data.lake.tables.commits import Fence, FenceLostError
from rlt_data.progress import Reporter, Task
from rlt_data.stages.runtime.contract import StageSummary
from rlt_data.stages.runtime.counters import Counters
from rlt_data.stages.runtime.outputs import REJECTS, RunOutputs


@dataclass(frozen=True)
class Preparation:
    """A stage that is ready to run: what identifies the run, and the function that does the work.

    `models` and `identity` enter the fingerprint besides the configuration and the inputs. `execute` is
    called with the run where there is work to do. `is_intact` returns whether the result of a finished run
    still exists outside the lake; where it does not, the stage runs again. `scheme_version` is raised when
    a stage's code starts to give other results for the same configuration.
    """

    execute: Callable[[StageRun], None]
    models: Sequence[NamedModel] = ()
    identity: Mapping[str, Any] = field(default_factory=dict)
    is_intact: Callable[[StageSummary], bool] | None = None
    scheme_version: int = 1


class StageRun:
    """A run in progress: reads pinned versions, and appends rows, rejects, counts and notes.

    As a context manager it records how the run ended: finished, or failed with the error, which is raised
    again.
    """

    def __init__(
        self,
        lake: Lake,
        reporter: Reporter,
        first: RunRecord,
        sequence: int,
        outputs: Sequence[str],
        *,
        repeats: bool = True,
        forced: bool = False,
        recorded: Mapping[str, int] | None = None,
    ) -> None:
        self.lake = lake
        self.reporter = reporter
        self.run_id = first.run_id
        self.attempt = first.attempt
        self.resumed = sequence > 0
        self.forced = forced
        self.summary = StageSummary(stage=first.stage, run_id=first.run_id)
        self._first = first
        self._sequence = sequence
        self._pinned = {state.table: state.version for state in first.inputs}
        self._outputs = RunOutputs(lake, first, sequence, outputs)
        self._counters = Counters(repeats=repeats)
        self._recorded = dict(recorded or {})
        self._present: dict[str, int] = {}

    def __enter__(self) -> StageRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            try:
                self.flush()
                self._outputs.check_rows()
                self._end("finished")
            except BaseException as own:
                self._fail(own)
                raise
        else:
            self._fail(error)

    def read(self, table: str) -> pl.LazyFrame:
        """Scan an input at the version that was newest when this run first started.

        Raises `LakeError` for a table that the stage did not declare.
        """
        if table not in self._pinned:
            what = f"stage {self.summary.stage} did not declare that it reads {table!r}"
            raise LakeError(what, where=table)
        return self.lake.table(table).scan(self._pinned[table])

    def list_versions(self, tables: Sequence[str]) -> dict[str, int]:
        """Return the versions that `tables` had when this run first started, of those that it pinned."""
        return {table: self._pinned[table] for table in tables if table in self._pinned}

    def written(self, table: str) -> pl.LazyFrame:
        """Scan the newest version of an output, with what this run has appended so far."""
        self.flush()
        return self.lake.table(table).scan()

    def append(self, table: str, rows: pl.DataFrame | pa.Table | list[dict[str, Any]]) -> None:
        """Append rows to an output; a row whose key this run appended before is dropped.

        `run_id` and absent nullable columns are filled in. Rows are buffered, and committed every few
        seconds or when there are many. Numbers that belong to these rows are counted before this call: they
        are committed together, or lost together. Raises `LakeError` where rows do not fit the schema.
        """
        if isinstance(rows, list):
            self._outputs.add_dicts(table, rows)
        else:
            self._outputs.add(table, rows)
        self._counters.attach(table)
        self.flush_when_due()

    def reject(
        self,
        *,
        source: str,
        reason: str,
        detail: str,
        source_row: int | None = None,
        key: str | None = None,
        content: str | None = None,
    ) -> None:
        """Put one input that the stage cannot use into `rejects`; the same reject counts once."""
        origin = (self.run_id, self.summary.stage, source, source_row, key, reason, content)
        row = {
            "reject_id": hash_content(*origin),
            "stage": self.summary.stage,
            "source": source,
            "source_row": source_row,
            "key": key,
            "reason": reason,
            "detail": detail,
            "content": content,
        }
        self.append(REJECTS, [row])

    def count(self, **numbers: int | float) -> None:
        """Add to the summary's numbers: `rows_in`, `truncated`, `tokens`, or any name, which goes to `extra`.

        `rows_in` counts inputs that are processed. Where a resumed run processes only the remaining inputs,
        the counts that earlier sessions committed with their rows are added.
        """
        self._counters.add(numbers)

    def note(self, text: str) -> None:
        """Add one sentence to the summary."""
        if text not in self.summary.notes:
            self.summary.notes.append(text)

    def track(self, description: str, total: int | None, unit: str = "rows") -> AbstractContextManager[Task]:
        """Show progress; see `Reporter.track`."""
        return self.reporter.track(description, total, unit)

    def flush(self) -> None:
        """Commit everything that is buffered."""
        self._outputs.flush(self._pinned, self._counters)

    def flush_when_due(self) -> None:
        """Commit what is buffered if a commit is due: for a stage that waits for more rows."""
        if self._outputs.is_due():
            self.flush()

    def resume(self) -> None:
        """Fence off older sessions of this run, and read what they committed and counted."""
        for numbers, rows in self._outputs.resume():
            self._counters.carry(numbers, rows)
        self._present = self._outputs.count_rows()

    def _end(self, status: str, error: str | None = None) -> None:
        """Summarize the whole run, and record how it ended."""
        if self._outputs.skipped:
            self.note(f"skipped {self._outputs.skipped:,} rows that another run committed first")
        rows = self._outputs.count_rows()
        for name, written in self._recorded.items():
            lost = written - self._present.get(name, 0)
            if lost > 0:
                again = max(0, rows.get(name, 0) - self._present.get(name, 0))
                self.note(f"{lost:,} rows of {name} were gone from the lake, and {again:,} were made anew")
        self._counters.fill(self.summary, rows, rejects=REJECTS)
        self.summary.status = status
        self.summary.extra |= self._outputs.count_reasons()
        commit_state(
            self.lake,
            self._first,
            sequence=self._sequence + 1,
            status=status,
            outputs=[self.lake.table(name).state() for name in self._outputs.names],
            counts=self.summary.model_dump(mode="json"),
            ended_at=datetime.now(UTC),
            error=error,
            fence=Fence(self.run_id, self._sequence),
        )

    def _fail(self, error: BaseException) -> None:
        """Commit what is buffered, and record the error or interruption that ended the run."""
        if isinstance(error, FenceLostError):
            return  # The run belongs to another process now.
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
        reason = reason.encode("utf-8", "backslashreplace").decode()  # It may quote a path that is not UTF-8.
        with suppress(LakeError, OSError):
            self.flush()
        with suppress(LakeError, OSError):
            self._end("failed", reason)
