"""One run of one stage: what it reads is pinned, what it writes is committed exactly once, and it resumes.

A run is identified by its fingerprint and its attempt. `open_run` finds out whether that run is finished
(nothing is done), was cut off (it goes on: same run, same pinned versions), or is new. Two processes with
the same run do no harm: the newer one raises a fence, and the older one is stopped at its next commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pyarrow as pa

from rlt_data.errors import LakeError
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake, RunRecord, TableState
from rlt_data.lake.fingerprint import NamedModel, compute_fingerprint
from rlt_data.lake.runs import commit_state, draft_record, read_first_state
from rlt_data.lake.sql.query import find_named_tables
from rlt_data.lake.tables.commits import Fence, FenceLostError
from rlt_data.progress import Reporter, Task
from rlt_data.stages.runtime.contract import StageConfig, StageSummary
from rlt_data.stages.runtime.counters import Tally
from rlt_data.stages.runtime.outputs import REJECTS, RunOutputs
from rlt_data.stages.runtime.planning import stop_when_planning

__all__ = ["StageConfig", "StageRun", "StageSummary", "open_run"]


class StageRun:
    """The hands of a stage: it reads pinned versions and appends rows, rejects, counts and notes."""

    def __init__(
        self, lake: Lake, reporter: Reporter, first: RunRecord, sequence: int, outputs: Sequence[str]
    ) -> None:
        self.lake = lake
        self.reporter = reporter
        self.run_id = first.run_id
        self.attempt = first.attempt
        self.already_done = False
        self.summary = StageSummary(stage=first.stage, run_id=first.run_id)
        self._first = first
        self._sequence = sequence
        self._pinned = {state.table: state.version for state in first.inputs}
        self._outputs = RunOutputs(lake, first, sequence, outputs)
        self._tally = Tally()

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
        """Scan the newest version of an output, with what this run appended so far."""
        self.flush()
        return self.lake.table(table).scan()

    def append(self, table: str, rows: pl.DataFrame | pa.Table | list[dict[str, Any]]) -> None:
        """Append rows to an output; a row whose key this run appended before is dropped.

        `run_id` and absent nullable columns are filled in. Rows are buffered, and committed every few
        seconds or when many have come. Numbers that belong to these rows are counted before this call: they
        are committed together, or lost together. Raises `LakeError` where rows do not fit the schema.
        """
        if isinstance(rows, list):
            self._outputs.add_loose(table, rows)
        else:
            self._outputs.add(table, rows)
        self._tally.attach(table)
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
        """Put one input that the stage cannot take into `rejects`; the same reject counts once."""
        place = (self.run_id, self.summary.stage, source, source_row, key, reason, content)
        row = {
            "reject_id": hash_content(*place),
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

        `rows_in` counts the rows that this call of the stage takes up; rows that an interrupted leg of the
        same run finished are added by themselves.
        """
        self._tally.add(numbers)

    def note(self, text: str) -> None:
        """Add one sentence to the summary."""
        if text not in self.summary.notes:
            self.summary.notes.append(text)

    def track(self, description: str, total: int | None, unit: str = "rows") -> AbstractContextManager[Task]:
        """Show progress; see `Reporter.track`."""
        return self.reporter.track(description, total, unit)

    def flush(self) -> None:
        """Commit everything that is buffered."""
        self._outputs.flush(self._pinned, self._tally)

    def flush_when_due(self) -> None:
        """Commit what is buffered where its time has come: for a stage that waits for more rows."""
        if self._outputs.is_due():
            self.flush()

    def take_over(self) -> None:
        """Go on where earlier legs of this run stopped."""
        for numbers in self._outputs.take_over():
            self._tally.carry(numbers)

    def end(self, status: str, error: str | None = None) -> None:
        """Sum the whole run up, and record how it ended."""
        if self._outputs.met:
            self.note(f"{self._outputs.met} rows were left out: another run committed them in the meantime")
        self._tally.fill(
            self.summary,
            self._outputs.count_rows(),
            rejects=REJECTS,
            earlier_rows=self._outputs.earlier_rows,
            dropped_rows=self._outputs.dropped_rows,
            redone=self._outputs.redone,
        )
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


@contextmanager
def open_run(
    lake: Lake,
    stage: str,
    config: StageConfig,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    pinned: Sequence[str] = (),
    models: Sequence[NamedModel] = (),
    identity: Mapping[str, Any] | None = None,
    scheme_version: int = 1,
    force: bool = False,
    still_there: Callable[[StageSummary], bool] | None = None,
    reporter: Reporter | None = None,
) -> Iterator[StageRun]:
    """Open the run that `stage` under `config` is: new, going on, or finished before (`already_done`).

    `inputs` are pinned and enter the fingerprint by row count and key digest; `pinned` are pinned only.
    Tables that the predicates of `config` ask are inputs too, but for those that this or every run writes,
    which are pinned only: so what a predicate keeps is the same after an interruption.
    `identity` is whatever else decides the result, such as a format's text. `force` runs a finished stage
    again as the next attempt (one that was cut off goes on), and so does a finished run whose result is
    not `still_there`, a question that is asked with its summary. On leaving, the run is recorded as
    finished, or as failed with the error, which is raised again.
    """
    asked = find_named_tables(config.list_predicates())
    written = {*outputs, REJECTS, "runs"}
    inputs = list(dict.fromkeys([*inputs, *(name for name in asked if name not in written)]))
    states = {name: lake.table(name).state() for name in dict.fromkeys([*inputs, *pinned, *asked])}
    fingerprint = compute_fingerprint(
        stage,
        scheme_version=scheme_version,
        config=config.list_identity(),
        inputs=[states[name] for name in inputs],
        models=models,
        identity=identity or {},
    )
    reporter = reporter or Reporter(quiet=True)
    draft = draft_record(
        stage,
        config=config.model_dump(mode="json"),
        fingerprint=fingerprint,
        scheme_version=scheme_version,
        inputs=list(states.values()),
        models=models,
    )
    run = _claim_run(lake, draft, reporter, outputs, force=force, still_there=still_there)
    if run.already_done:
        yield run
        return
    try:
        yield run
        run.flush()
        run.end("finished")
    except (FenceLostError, GeneratorExit):
        # The run is another process's now, or the stage was dropped without an end, as a kill does.
        raise
    except BaseException as error:
        # Whatever stopped the stage, also Ctrl-C: keep what it made and say why, then let the error go on.
        told = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
        with suppress(LakeError, OSError):
            run.flush()
        with suppress(LakeError, OSError):
            run.end("failed", told)
        raise


def _claim_run(
    lake: Lake,
    draft: RunRecord,
    reporter: Reporter,
    outputs: Sequence[str],
    *,
    force: bool,
    still_there: Callable[[StageSummary], bool] | None,
) -> StageRun:
    """Find the run among those recorded, or start it; each state's number is given to one process only."""
    while True:
        known = [record for record in lake.runs() if record.fingerprint == draft.fingerprint]
        known.sort(key=lambda record: record.attempt)
        done = _find_done(known, still_there)
        stop_when_planning(known, done)
        if done is not None and not force:
            run = StageRun(lake, reporter, done, -1, outputs)
            run.already_done = True
            run.summary = StageSummary.model_validate(done.counts)
            run.summary.status = "already finished"
            return run
        latest = known[-1] if known else None
        if latest is not None and not latest.finished:
            first, sequence, status = (
                read_first_state(lake.table("runs").scan(), latest.run_id),
                latest.sequence + 1,
                "resumed",
            )
        else:
            attempt = 0 if latest is None else latest.attempt + 1
            first = replace(draft, run_id=hash_content(draft.fingerprint, attempt), attempt=attempt)
            sequence, status = 0, "started"
        tables = [lake.table(name) for name in dict.fromkeys([*outputs, REJECTS])]
        starts = [TableState(table.name, table.version(), table.count(), "") for table in tables]
        if sequence == 0:
            first = replace(first, outputs=tuple(starts))
        fence = Fence(first.run_id, sequence)
        if commit_state(lake, first, sequence=sequence, status=status, outputs=starts, fence=fence):
            run = StageRun(lake, reporter, first, sequence, outputs)
            if sequence:
                run.take_over()
            return run


def _find_done(
    known: Sequence[RunRecord], still_there: Callable[[StageSummary], bool] | None
) -> RunRecord | None:
    """Find the newest finished run of those `known`; None where its result is gone."""
    finished = [record for record in known if record.finished]
    if not finished:
        return None
    summary = StageSummary.model_validate(finished[-1].counts)
    return finished[-1] if still_there is None or still_there(summary) else None
