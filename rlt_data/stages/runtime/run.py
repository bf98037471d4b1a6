"""One run of one stage: its inputs are pinned, its rows are committed exactly once, and it resumes.

A run is identified by its fingerprint and its attempt. `start_run` finds out whether that run is finished
(nothing is done), was interrupted (it resumes: same run, same pinned versions), or is new. A finished run
whose rows are gone from the lake counts as interrupted: it resumes, and makes them anew. Two processes may
safely work on the same run: the newer one raises a fence, and the older one is stopped at its next commit.
Each process that works on a run is one session of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import polars as pl
import pyarrow as pa

from rlt_data.errors import LakeError
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake, RunRecord, TableState
from rlt_data.lake.fingerprint import NamedModel, compute_fingerprint
from rlt_data.lake.integrity.rows import check_inputs, find_missing_rows, find_recorded_version
from rlt_data.lake.runs import SESSION_KEY, commit_state, count_recorded_rows, draft_record, read_first_state
from rlt_data.lake.sessions import describe_session
from rlt_data.lake.sql.query import find_named_tables
from rlt_data.lake.tables.commits import Fence, FenceLostError
from rlt_data.lake.tables.table import NO_VERSION
from rlt_data.progress import Reporter, Task
from rlt_data.stages.runtime.contract import StageConfig, StageSummary
from rlt_data.stages.runtime.counters import Counters
from rlt_data.stages.runtime.declaration import StageDeclaration
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


def start_run(
    lake: Lake,
    stage: StageDeclaration,
    config: StageConfig,
    preparation: Preparation,
    *,
    force: bool = False,
    reporter: Reporter | None = None,
) -> StageRun | StageSummary:
    """Start the run of `stage` under `config`, or resume it; the summary of one that is finished already.

    `force` runs a finished stage again as the next attempt (an interrupted one resumes), and so does a
    finished run whose result is no longer intact. Raises `LakeError` where rows of an input are missing that
    a finished run wrote.
    """
    draft = draft_run(lake, stage, config, preparation)
    reporter = reporter or Reporter(quiet=True)
    while True:
        existing = list_runs_of(lake, draft.fingerprint)
        done = find_finished(existing, preparation)
        lost = [] if done is None else find_missing_rows(lake, [done])
        if done is not None and not lost and not force:
            summary = StageSummary.model_validate(done.counts)
            return summary.model_copy(update={"status": "already finished"})
        run = _claim(lake, stage, draft, existing, reporter, forced=force, reopened=done if lost else None)
        if run is not None:
            return run


def draft_run(
    lake: Lake, stage: StageDeclaration, config: StageConfig, preparation: Preparation
) -> RunRecord:
    """Describe the run of `stage` under `config`, with its fingerprint and its inputs pinned as they are now.

    Tables that the predicates of `config` query are inputs too, except those that this or every run writes,
    which are pinned only; so a predicate selects the same rows after an interruption.
    Raises `LakeError` where rows of an input are missing that a finished run wrote.
    """
    queried = find_named_tables(config.list_predicates())
    written = {*stage.writes, REJECTS, "runs"}
    inputs = list(dict.fromkeys([*stage.reads, *(name for name in queried if name not in written)]))
    check_inputs(lake, {*stage.reads, *stage.pins, *queried} - written, lake.runs())
    states = {name: lake.table(name).state() for name in dict.fromkeys([*inputs, *stage.pins, *queried])}
    fingerprint = compute_fingerprint(
        stage.name,
        scheme_version=preparation.scheme_version,
        config=config.list_identity(),
        inputs=[states[name] for name in inputs],
        models=preparation.models,
        identity=preparation.identity,
    )
    return draft_record(
        stage.name,
        config=config.model_dump(mode="json"),
        fingerprint=fingerprint,
        scheme_version=preparation.scheme_version,
        inputs=list(states.values()),
        models=preparation.models,
    )


def list_runs_of(lake: Lake, fingerprint: str) -> list[RunRecord]:
    """List the runs of a fingerprint, in the order of their attempts."""
    runs = [record for record in lake.runs() if record.fingerprint == fingerprint]
    return sorted(runs, key=lambda record: record.attempt)


def find_finished(existing: Sequence[RunRecord], preparation: Preparation) -> RunRecord | None:
    """Find the newest finished run of those `existing`; None where its result is no longer intact."""
    finished = [record for record in existing if record.finished]
    if not finished:
        return None
    if preparation.is_intact is None:
        return finished[-1]
    summary = StageSummary.model_validate(finished[-1].counts)
    return finished[-1] if preparation.is_intact(summary) else None


def find_interrupted(existing: Sequence[RunRecord]) -> RunRecord | None:
    """Find the run of those `existing` that resumes: the last attempt, if it is not finished."""
    return existing[-1] if existing and not existing[-1].finished else None


def _claim(
    lake: Lake,
    stage: StageDeclaration,
    draft: RunRecord,
    existing: Sequence[RunRecord],
    reporter: Reporter,
    *,
    forced: bool,
    reopened: RunRecord | None,
) -> StageRun | None:
    """Record the next state of a run as this process's; None where another process was first.

    `reopened` is a finished run that has lost rows.
    """
    notes: list[str] = []
    tables = [lake.table(name) for name in dict.fromkeys([*stage.writes, REJECTS])]
    if reopened is not None:
        for table in tables:
            if table.version() != NO_VERSION or reopened.rows_written.get(table.name):
                table.advance_version(find_recorded_version(table.name, lake.runs()))
    latest = reopened or find_interrupted(existing)
    starts = [TableState(table.name, table.version(), table.count(), "") for table in tables]
    if latest is not None:
        first = read_first_state(lake.table("runs").scan(), latest.run_id)
        inputs = [_pin(lake, state, draft, notes) for state in latest.inputs]
        first = replace(first, inputs=tuple(inputs))
        if not first.config:  # A repair recorded the run again, from what its commits say.
            first = replace(
                first, config=draft.config, models=draft.models, scheme_version=draft.scheme_version
            )
        sequence, status = latest.sequence + 1, "resumed"
    else:
        attempt = existing[-1].attempt + 1 if existing else 0
        run_id = hash_content(draft.fingerprint, attempt)
        # Where the record of this run is lost, its rows are still there, and its older sessions shut out.
        fences = [table.find_fence(run_id) for table in (lake.table("runs"), *tables)]
        sequence, status = max((number + 1 for number in fences if number is not None), default=0), "started"
        if sequence:
            starts = [TableState(table.name, NO_VERSION, 0, "") for table in tables]
        first = replace(draft, run_id=run_id, attempt=attempt, outputs=tuple(starts))
    fence = Fence(first.run_id, sequence)
    if not commit_state(
        lake,
        first,
        sequence=sequence,
        status=status,
        outputs=starts,
        counts={SESSION_KEY: describe_session()},
        fence=fence,
    ):
        return None
    recorded = None if latest is None else count_recorded_rows(latest)
    run = StageRun(
        lake,
        reporter,
        first,
        sequence,
        stage.writes,
        repeats=stage.repeats,
        forced=forced,
        recorded=recorded,
    )
    for note in notes:
        run.note(note)
    if run.resumed:
        run.resume()
    return run


def _pin(lake: Lake, state: TableState, draft: RunRecord, notes: list[str]) -> TableState:
    """Return the version at which a resumed run reads an input.

    It is the one that the run pinned. If that one is gone, it is the newest: its content is the same where it
    is part of the fingerprint.
    """
    table = lake.table(state.table)
    try:
        if table.count(state.version) == state.rows:
            return state
    except LakeError:
        pass
    newest = next((other for other in draft.inputs if other.table == state.table), None)
    if newest is None or newest.version == state.version:
        return state
    notes.append(
        f"{state.table} was read at version {newest.version}: version {state.version}, which this run had "
        "pinned, is gone"
    )
    return newest
