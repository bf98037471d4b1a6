"""The record of runs: each state of a run is a row, and its newest state is what users see."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import polars as pl

from rlt_data.errors import LakeError
from rlt_data.hashing import hash_content
from rlt_data.lake.catalog import Catalog
from rlt_data.lake.fingerprint import NamedModel
from rlt_data.lake.newest_versions import note_newest
from rlt_data.lake.tables.commits import Fence
from rlt_data.lake.tables.conform import build_rows
from rlt_data.lake.tables.damage import REPAIR_REMEDY
from rlt_data.lake.tables.table import TableState

SESSION_KEY = "session"
"""Key of `counts` while a run is at work: the process that works on it (see `rlt_data.lake.sessions`)."""

PACKAGES = (
    "rlt-data", "deltalake", "duckdb", "polars", "pyarrow", "torch", "transformers", "trl", "vllm",
    "accelerate", "reasoning-gym", "datasets", "math-verify",
)  # fmt: skip


@dataclass(frozen=True)
class RunRecord:
    """The newest state of one run; columns as in `rlt_data.schemas.RUNS`, JSON parsed."""

    run_event_id: str
    run_id: str
    sequence: int
    stage: str
    status: str
    config: Mapping[str, Any]
    fingerprint: str
    scheme_version: int
    attempt: int
    inputs: tuple[TableState, ...]
    outputs: tuple[TableState, ...]
    models: tuple[Mapping[str, Any], ...]
    packages: Mapping[str, str]
    counts: Mapping[str, Any]
    started_at: datetime
    ended_at: datetime | None
    error: str | None

    @property
    def finished(self) -> bool:
        """Whether the run finished successfully."""
        return self.status == "finished"

    @property
    def rows_written(self) -> dict[str, int]:
        """The rows of the whole run by table, as counted when it ended; empty before."""
        return dict(self.counts.get("tables", {}))


def list_runs(catalog: Catalog) -> list[RunRecord]:
    """Return the newest state of each run, in the order in which the runs started."""
    runs = catalog.table("runs")
    newest = runs.scan().sort("sequence").group_by("run_id", maintain_order=True).last()
    return read_states(runs.collect(newest.sort("started_at", "run_id")))


def read_states(rows: pl.DataFrame) -> list[RunRecord]:
    """Parse rows of `runs`. Raises `LakeError` for a state that is damaged."""
    return [_read_record(row) for row in rows.to_dicts()]


def sort_by_end(catalog: Catalog, runs: Iterable[RunRecord]) -> list[RunRecord]:
    """Sort finished runs by when they finished first, the newest last.

    The order is that of the log of `runs`, so that a clock that was set back changes nothing; nor does making
    lost rows of a run anew. Runs that the log no longer lists (Delta removes old entries) are older than all
    others, and sorted by their times.
    """
    unsorted = list(runs)
    if len(unsorted) < 2:
        return unsorted
    positions = _find_finishes(catalog)

    def order(run: RunRecord) -> tuple[int, str, str]:
        return positions.get(run.run_id, -1), str(run.ended_at), run.run_id

    return sorted(unsorted, key=order)


def sort_by_start(catalog: Catalog, runs: Iterable[RunRecord]) -> list[RunRecord]:
    """Sort runs by when they started, the newest last, by the log of `runs` as in `sort_by_end`."""
    unsorted = list(runs)
    if len(unsorted) < 2:
        return unsorted
    positions = read_log_positions(catalog)

    def order(run: RunRecord) -> tuple[int, str, str]:
        return positions.get(run.run_id, (-1, -1))[0], str(run.started_at), run.run_id

    return sorted(unsorted, key=order)


def read_run_order(catalog: Catalog) -> list[tuple[str, int, int]]:
    """Return of each run in the log of `runs` the versions in which it started, and finished first.

    Of a run that is not finished the second is that of its last state.
    """
    starts, finishes = read_log_positions(catalog), _find_finishes(catalog)
    return [(run_id, starts[run_id][0], finishes[run_id]) for run_id in starts if run_id in finishes]


def _find_finishes(catalog: Catalog) -> dict[str, int]:
    """Return the version of `runs` in which each run finished first, or its last one if that is unclear."""
    runs = catalog.table("runs")
    commits: dict[str, list[int]] = {}
    for entry in reversed(runs.versions()):
        if entry.run_id is not None:
            commits.setdefault(entry.run_id, []).append(entry.version)
    states = runs.collect(runs.scan().select("run_id", "sequence", "status").sort("sequence"))
    statuses: dict[str, list[str]] = {}
    for run_id, _, status in states.iter_rows():
        statuses.setdefault(run_id, []).append(status)
    positions = {}
    for run_id, versions in commits.items():
        found = statuses.get(run_id, [])
        # Each state is a commit; where some are lost, it is not known which.
        first = found.index("finished") if "finished" in found and len(found) == len(versions) else -1
        positions[run_id] = versions[first]
    return positions


def read_log_positions(catalog: Catalog) -> dict[str, tuple[int, int]]:
    """Return the versions of `runs` that hold the first and the last state of each run in its log."""
    positions: dict[str, tuple[int, int]] = {}
    for entry in catalog.table("runs").versions():  # the newest first
        if entry.run_id is not None:
            _, last = positions.get(entry.run_id, (entry.version, entry.version))
            positions[entry.run_id] = (entry.version, last)
    return positions


def find_run(catalog: Catalog, run_id: str) -> RunRecord:
    """Return the newest state of the run with this id, or prefix of an id.

    Raises `LakeError` where no run or more than one matches.
    """
    matching = [run for run in list_runs(catalog) if run.run_id.startswith(run_id)]
    exact = [run for run in matching if run.run_id == run_id]
    if len(exact or matching) != 1:
        raise LakeError(
            f"{len(matching) or 'no'} run(s) begin with {run_id!r}",
            where=catalog.uri,
            remedy="`rlt-data log` lists the runs",
        )
    return (exact or matching)[0]


def read_first_state(runs: pl.LazyFrame, run_id: str) -> RunRecord:
    """Return the first state of a run, which has its pinned inputs."""
    rows = runs.filter(pl.col("run_id") == run_id).sort("sequence").head(1).collect().to_dicts()
    return _read_record(rows[0])


def count_recorded_rows(record: RunRecord) -> dict[str, int]:
    """Count the rows that a run has written, by table, with those that were lost since."""
    lost = record.counts.get("lost", {})
    return {
        name: rows + lost.get(name, 0)
        for name, rows in ({**dict.fromkeys(lost, 0), **record.rows_written}).items()
    }


def _read_record(row: dict[str, Any]) -> RunRecord:
    try:
        counts = dict(json.loads(row["counts"]))
        for key in ("tables", "lost"):
            counts |= {key: {name: int(rows) for name, rows in counts[key].items()}} if key in counts else {}
        return RunRecord(
            **{
                **row,
                "config": dict(json.loads(row["config"])),
                "packages": dict(json.loads(row["packages"])),
                "counts": counts,
                "inputs": tuple(TableState(**state) for state in row["inputs"]),
                "outputs": tuple(TableState(**state) for state in row["outputs"]),
                "models": tuple(row["models"]),
            }
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise LakeError(
            f"table runs is damaged: the state {row.get('run_event_id')!r} cannot be read: {error}",
            where="runs",
            remedy=REPAIR_REMEDY,
        ) from error


def draft_record(
    stage: str,
    *,
    config: Mapping[str, Any],
    fingerprint: str,
    scheme_version: int,
    inputs: Sequence[TableState],
    models: Sequence[NamedModel],
) -> RunRecord:
    """Describe a run that is about to start; the caller fills in its id, attempt and outputs."""
    return RunRecord(
        run_event_id="",
        run_id="",
        sequence=0,
        stage=stage,
        status="started",
        config=config,
        fingerprint=fingerprint,
        scheme_version=scheme_version,
        attempt=0,
        inputs=tuple(inputs),
        outputs=(),
        models=tuple(
            {"role": m.role, "name": m.name, "model": m.model, "revision": m.revision} for m in models
        ),
        packages=list_packages(),
        counts={},
        started_at=datetime.now(UTC),
        ended_at=None,
        error=None,
    )


def commit_state(
    catalog: Catalog,
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
    """Append one state of a run; false if another process took this `sequence` number first."""
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
        "packages": json.dumps(list_packages(), sort_keys=True),
        "counts": json.dumps(counts or {}, sort_keys=True, ensure_ascii=False),
        "started_at": first.started_at,
        "ended_at": ended_at,
        "error": error,
    }
    runs = catalog.table("runs")
    rows = build_rows([row], runs.schema.arrow)
    commit = runs.commit(rows, run_id=first.run_id, fence=fence)
    note_newest(catalog.folder, runs, commit.version)
    return commit.written


def list_packages() -> dict[str, str]:
    """Return the versions of those of `PACKAGES` that are installed, without importing any."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
