"""One run of one stage: what it reads is pinned, what it writes is committed exactly once, and it resumes.

A run is identified by its fingerprint and its attempt. `open_run` finds out whether that run is finished
(nothing is done), was cut off (it goes on: same run, same pinned versions), or is new. Two processes with
the same run do no harm: the newer one raises a fence, and the older one is stopped at its next commit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import polars as pl
import pyarrow as pa

from rlt_data.errors import LakeError
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake, RunRecord, TableState
from rlt_data.lake.commits import Fence, FenceLostError
from rlt_data.lake.conform import conform_rows
from rlt_data.lake.fingerprint import NamedModel, compute_fingerprint
from rlt_data.lake.runs import read_first_state
from rlt_data.progress import Reporter, Task
from rlt_data.stages.summary import StageConfig, StageSummary

__all__ = ["StageConfig", "StageRun", "StageSummary", "open_run"]

FLUSH_SECONDS = 2.0
FLUSH_ROWS = 20_000
FLUSH_BYTES = 64 * 2**20
REJECTS = "rejects"
PACKAGES = (
    "rlt-data", "deltalake", "duckdb", "polars", "pyarrow", "torch", "transformers", "trl", "vllm",
    "accelerate", "reasoning-gym", "datasets", "math-verify",
)  # fmt: skip


class StageRun:
    """The hands of a stage: it reads pinned versions and appends rows, rejects, counts and notes."""

    def __init__(
        self,
        lake: Lake,
        reporter: Reporter,
        first: RunRecord,
        *,
        sequence: int,
        outputs: Sequence[str],
    ) -> None:
        self.lake = lake
        self.reporter = reporter
        self.run_id = first.run_id
        self.attempt = first.attempt
        self.already_done = False
        self.summary = StageSummary(stage=first.stage, run_id=first.run_id)
        self._first = first
        self._sequence = sequence
        self._fence = Fence(first.run_id, sequence)
        self._outputs = tuple(dict.fromkeys([*outputs, REJECTS]))
        self._pinned = {state.table: state.version for state in first.inputs}
        self._buffers: dict[str, list[pa.Table]] = {name: [] for name in self._outputs}
        self._rejects: list[dict[str, Any]] = []
        self._buffered_rows = 0
        self._buffered_bytes = 0
        self._earlier: dict[str, set[str]] = {name: set() for name in self._outputs}
        self._appended: dict[str, set[str]] = {name: set() for name in self._outputs}
        self._dropped = 0
        self._counts: dict[str, float] = {}
        self._pending: dict[str, float] = {}
        self._carried: dict[str, float] = {}
        self._last_flush = time.monotonic()
        self._opened = self._counted_until = time.monotonic()

    def read(self, table: str) -> pl.LazyFrame:
        """Scan an input at the version that was newest when this run first started."""
        if table not in self._pinned:
            raise LakeError(
                f"stage {self.summary.stage} did not declare that it reads {table!r}", where=table
            )
        return self.lake.table(table).scan(self._pinned[table])

    def written(self, table: str) -> pl.LazyFrame:
        """Scan the newest version of an output, with what this run appended so far."""
        self.flush()
        return self.lake.table(table).scan()

    def append(self, table: str, rows: pl.DataFrame | pa.Table | list[dict[str, Any]]) -> None:
        """Append rows to an output; a row whose key this run appended before is dropped.

        `run_id` and absent nullable columns are filled in. Rows are buffered, and committed every few
        seconds or when many have come. Numbers that belong to these rows are best counted before this call:
        they are then committed with them. Raises `LakeError` where rows do not fit the schema.
        """
        if table not in self._buffers:
            raise LakeError(
                f"stage {self.summary.stage} did not declare that it writes {table!r}", where=table
            )
        schema = self.lake.table(table).schema
        if isinstance(rows, list):
            rows = _build_table(rows, schema.arrow)
        arrow = self._drop_known(table, conform_rows(rows, schema, run_id=self.run_id))
        if arrow.num_rows:
            self._buffers[table].append(arrow)
            self._buffered_rows += arrow.num_rows
            self._buffered_bytes += arrow.nbytes
        self._flush_when_due()

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
        self._rejects.append(
            {
                "reject_id": hash_content(*place),
                "stage": self.summary.stage,
                "source": source,
                "source_row": source_row,
                "key": key,
                "reason": reason,
                "detail": detail,
                "content": content,
            }
        )
        self._buffered_rows += 1
        self._flush_when_due()

    def count(self, **numbers: int | float) -> None:
        """Add to the summary's numbers: `rows_in`, `truncated`, `tokens`, or any name, which goes to `extra`.

        `rows_in` counts the rows that this call of the stage takes up; rows that an interrupted leg of the
        same run finished are added by themselves.
        """
        for name, number in numbers.items():
            self._counts[name] = self._counts.get(name, 0) + number
            self._pending[name] = self._pending.get(name, 0) + number

    def note(self, text: str) -> None:
        """Add one sentence to the summary."""
        if text not in self.summary.notes:
            self.summary.notes.append(text)

    def track(self, description: str, total: int | None, unit: str = "rows") -> AbstractContextManager[Task]:
        """Show progress; see `Reporter.track`."""
        return self.reporter.track(description, total, unit)

    def flush(self) -> None:
        """Commit everything that is buffered."""
        if self._rejects:
            schema = self.lake.table(REJECTS).schema
            rejects = _build_table(self._rejects, schema.arrow)
            rejects = self._drop_known(REJECTS, conform_rows(rejects, schema, run_id=self.run_id))
            self._rejects = []
            if rejects.num_rows:
                self._buffers[REJECTS].append(rejects)
        for table, chunks in self._buffers.items():
            if chunks:
                rows = pa.concat_tables(chunks)
                keys = rows.column(self.lake.table(table).schema.key).to_pylist()
                self.lake.table(table).commit(
                    rows,
                    run_id=self.run_id,
                    chunk_id=hash_content(self.run_id, table, sorted(keys)),
                    metadata=self._describe_commit(),
                    fence=self._fence,
                )
                self._pending = {}
                self._counted_until = time.monotonic()
                chunks.clear()
        self._buffered_rows = self._buffered_bytes = 0
        self._last_flush = time.monotonic()

    def _flush_when_due(self) -> None:
        if (
            self._buffered_rows >= FLUSH_ROWS
            or self._buffered_bytes >= FLUSH_BYTES
            or time.monotonic() - self._last_flush >= FLUSH_SECONDS
        ):
            self.flush()

    def _drop_known(self, table: str, rows: pa.Table) -> pa.Table:
        """Drop rows whose key this run holds already, and remember the keys of the others."""
        earlier, appended = self._earlier[table], self._appended[table]
        keep = []
        for place, key in enumerate(rows.column(self.lake.table(table).schema.key).to_pylist()):
            if key in appended:
                continue
            appended.add(key)
            if key in earlier:
                self._dropped += 1
            else:
                keep.append(place)
        return rows if len(keep) == rows.num_rows else rows.take(pa.array(keep, pa.int64()))

    def _describe_commit(self) -> dict[str, str]:
        """Say in the commit whose it is and from what: the lineage, readable from the Delta log alone."""
        counts = {**self._pending, "seconds": time.monotonic() - self._counted_until}
        return {
            "rlt_data.stage": self.summary.stage,
            "rlt_data.fingerprint": self._first.fingerprint,
            "rlt_data.inputs": json.dumps(self._pinned, sort_keys=True),
            "rlt_data.counts": json.dumps(counts, sort_keys=True),
        }

    def resume(self) -> None:
        """Take over what earlier legs of this run committed: their keys, and the numbers they counted."""
        starts = {state.table: state.version for state in self._first.outputs}
        for name in self._outputs:
            table = self.lake.table(name)
            table.raise_fence(self._fence)
            mine = pl.col("run_id") == self.run_id
            keys = table.scan().filter(mine).select(table.schema.key).collect()
            self._earlier[name] = set(keys.get_column(table.schema.key).to_list())
            commits = table.version() - starts.get(name, -1)
            for commit in table.list_versions(limit=commits):
                if commit.run_id == self.run_id and "rlt_data.counts" in commit.metadata:
                    for key, number in json.loads(commit.metadata["rlt_data.counts"]).items():
                        self._carried[key] = self._carried.get(key, 0) + number

    def finish(self) -> None:
        """Commit what is buffered, sum the whole run up, and record it as finished."""
        self.flush()
        self._sum_up()
        self.summary.status = "finished"
        self._record("finished")

    def fail(self, error: BaseException) -> None:
        """Commit what is buffered, and record why the run stopped."""
        self.flush()
        self._sum_up()
        self.summary.status = "failed"
        told = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
        self._record("failed", error=told)

    def _sum_up(self) -> None:
        """Fill the summary with numbers of the whole run.

        Rows come from the tables. A leg that took everything up again (rows of earlier legs were dropped)
        has counted everything itself; one that took up what was left adds to what was counted before.
        """
        summary = self.summary
        summary.tables = {}
        for name in self._outputs:
            rows = len(self._earlier[name] | self._appended[name])
            if name != REJECTS or rows:
                summary.tables[name] = rows
        earlier_rows = sum(len(keys) for keys in self._earlier.values())
        counts = dict(self._counts)
        if not self._dropped:
            for key, number in self._carried.items():
                if key != "seconds":
                    counts[key] = counts.get(key, 0) + number
        summary.seconds = self._carried.get("seconds", 0.0) + time.monotonic() - self._opened
        summary.rejected = summary.tables.get(REJECTS, 0)
        summary.rows_out = sum(rows for name, rows in summary.tables.items() if name != REJECTS)
        summary.rows_in = int(self._counts.get("rows_in", 0)) + earlier_rows - self._dropped
        summary.truncated = int(counts.pop("truncated", 0))
        summary.tokens = int(counts.pop("tokens", 0))
        counts.pop("rows_in", None)
        counts.pop("rows_out", None)
        summary.extra = {**summary.extra, **counts}
        summary.truncated_share = summary.truncated / summary.rows_out if summary.rows_out else 0.0
        summary.tokens_per_second = summary.tokens / summary.seconds if summary.seconds else 0.0

    def _record(self, status: str, *, error: str | None = None) -> None:
        tables = [self.lake.table(name) for name in self._outputs]
        finished = status == "finished"
        outputs = [
            table.state() if finished else TableState(table.name, table.version(), table.count(), "")
            for table in tables
        ]
        commit_state(
            self.lake,
            self._first,
            sequence=self._sequence + 1,
            status=status,
            outputs=outputs,
            counts=self.summary.model_dump(mode="json"),
            ended_at=datetime.now(UTC),
            error=error,
            fence=self._fence,
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
    reporter: Reporter | None = None,
) -> Iterator[StageRun]:
    """Open the run that `stage` under `config` is: new, going on, or finished before (`already_done`).

    `inputs` are pinned and enter the fingerprint by row count and key digest; `pinned` are pinned only.
    `identity` is whatever else decides the result, such as a format's text. `force` runs a finished stage
    again as the next attempt (one that was cut off goes on). On leaving, the run is recorded as finished,
    or as failed with the error, which is raised again.
    """
    states = {name: lake.table(name).state() for name in dict.fromkeys([*inputs, *pinned])}
    fingerprint = compute_fingerprint(
        stage,
        scheme_version=scheme_version,
        config=config.list_identity(),
        inputs=[states[name] for name in inputs],
        models=models,
        identity=identity or {},
    )
    reporter = reporter or Reporter(quiet=True)
    draft = _draft_record(stage, config, fingerprint, scheme_version, states, models)
    run = _claim_run(lake, draft, reporter, outputs, force=force)
    if run.already_done:
        yield run
        return
    try:
        yield run
        run.finish()
    except FenceLostError:
        raise
    except BaseException as error:
        # Whatever stopped the stage, also Ctrl-C: keep what it made and say why, then let the error go on.
        with suppress(LakeError, OSError):
            run.fail(error)
        raise


def _draft_record(
    stage: str,
    config: StageConfig,
    fingerprint: str,
    scheme_version: int,
    states: Mapping[str, TableState],
    models: Sequence[NamedModel],
) -> RunRecord:
    """Describe the first state of a run; its id, attempt and outputs are filled in by the claim."""
    return RunRecord(
        run_event_id="",
        run_id="",
        sequence=0,
        stage=stage,
        status="started",
        config=config.model_dump(mode="json"),
        fingerprint=fingerprint,
        scheme_version=scheme_version,
        attempt=0,
        inputs=tuple(states.values()),
        outputs=(),
        models=tuple(
            {"role": m.role, "name": m.name, "model": m.model, "revision": m.revision} for m in models
        ),
        packages=_list_packages(),
        counts={},
        started_at=datetime.now(UTC),
        ended_at=None,
        error=None,
    )


def _claim_run(
    lake: Lake, draft: RunRecord, reporter: Reporter, outputs: Sequence[str], *, force: bool
) -> StageRun:
    """Find the run among those recorded, or start it; each state's number is given to one process only."""
    while True:
        known = [record for record in lake.runs() if record.fingerprint == draft.fingerprint]
        known.sort(key=lambda record: record.attempt)
        finished = [record for record in known if record.finished]
        if finished and not force:
            run = StageRun(lake, reporter, finished[-1], sequence=-1, outputs=outputs)
            run.already_done = True
            run.summary = StageSummary.model_validate(finished[-1].counts)
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
            run = StageRun(lake, reporter, first, sequence=sequence, outputs=outputs)
            if sequence:
                run.resume()
            return run


def commit_state(
    lake: Lake,
    first: RunRecord,
    *,
    sequence: int,
    status: str,
    outputs: Sequence[TableState],
    counts: Mapping[str, Any] | None = None,
    ended_at: datetime | None = None,
    error: str | None = None,
    fence: Fence,
) -> bool:
    """Append one state of a run; false where another process gave that state's number first."""
    row = {
        "run_event_id": hash_content(first.run_id, sequence),
        "run_id": first.run_id,
        "sequence": sequence,
        "stage": first.stage,
        "status": status,
        "config": json.dumps(first.config, sort_keys=True, ensure_ascii=False),
        "fingerprint": first.fingerprint,
        "scheme_version": first.scheme_version,
        "attempt": first.attempt,
        "inputs": [asdict(state) for state in first.inputs],
        "outputs": [asdict(state) for state in outputs],
        "models": list(first.models),
        "packages": json.dumps(_list_packages(), sort_keys=True),
        "counts": json.dumps(counts or {}, sort_keys=True, ensure_ascii=False),
        "started_at": first.started_at,
        "ended_at": ended_at,
        "error": error,
    }
    runs = lake.table("runs")
    rows = _build_table([row], runs.schema.arrow)
    return runs.commit(rows, run_id=first.run_id, fence=fence).written


def _build_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Build a table of the columns that any of `rows` names, with the schema's types where it has them."""
    names = dict.fromkeys(name for row in rows for name in row)
    fields = [schema.field(name).with_nullable(True) for name in names if name in schema.names]
    unknown = [name for name in names if name not in schema.names]
    try:
        table = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise LakeError(f"rows do not fit the table: {error}", remedy=", ".join(names)) from error
    for name in unknown:
        table = table.append_column(name, pa.nulls(len(rows)))
    return table


def _list_packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
