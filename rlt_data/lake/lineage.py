"""Lineage: which runs wrote the rows and trained the models that a run used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from rlt_data.errors import LakeError
from rlt_data.lake.catalog import Catalog
from rlt_data.lake.runs import RunRecord, find_run, list_runs, read_log_positions, sort_by_start


@dataclass(frozen=True)
class LineageStep:
    """One run in a lineage.

    `made_by` maps each table that the run read to the runs that wrote rows of it; `trained_by` maps the
    revision of each model that the run used to the runs of this lake that trained these weights.
    """

    run: RunRecord
    depth: int
    made_by: Mapping[str, tuple[str, ...]]
    trained_by: Mapping[str, tuple[str, ...]]


def trace_lineage(catalog: Catalog, run_id: str | None = None) -> list[LineageStep]:
    """Return the steps that led to a run, that run first (depth 0); all runs if `run_id` is None.

    The runs that wrote a table are those in its `run_id` column at the version that was read. If that version
    was vacuumed, they are those in the newest version that started before the run.
    """
    records = {record.run_id: record for record in list_runs(catalog)}
    if run_id is None:
        return [
            LineageStep(record, 0, find_makers(catalog, record, records), find_trainings(record, records))
            for record in sort_by_start(catalog, records.values())
        ]
    start = find_run(catalog, run_id)
    steps: dict[str, LineageStep] = {}
    waiting = [(start.run_id, 0)]
    while waiting:
        current, depth = waiting.pop(0)
        if current in steps or current not in records:
            continue
        made_by = find_makers(catalog, records[current], records)
        trained_by = find_trainings(records[current], records)
        steps[current] = LineageStep(records[current], depth, made_by, trained_by)
        for makers in (*made_by.values(), *trained_by.values()):
            waiting += [(maker, depth + 1) for maker in makers if maker != current]
    return list(steps.values())


def find_makers(
    catalog: Catalog, record: RunRecord, records: Mapping[str, RunRecord]
) -> dict[str, tuple[str, ...]]:
    """Return the runs that had written rows of each table that a run read."""
    made_by = {}
    for state in record.inputs:
        table = catalog.table(state.table)
        try:
            makers = _list_writers(table.scan(state.version))
        except LakeError:
            positions = read_log_positions(catalog)
            started = positions.get(record.run_id, (-1, -1))[0]
            makers = [m for m in _list_writers(table.scan()) if positions.get(m, (-1, -1))[0] <= started]
        made_by[state.table] = tuple(sorted(makers, key=lambda maker: (maker not in records, maker)))
    return made_by


def _list_writers(rows: pl.LazyFrame) -> list[str]:
    return rows.select(pl.col("run_id").unique()).collect().get_column("run_id").to_list()


def find_trainings(record: RunRecord, records: Mapping[str, RunRecord]) -> dict[str, tuple[str, ...]]:
    """Return the runs that trained each model that a run used, keyed by the revision of the model."""
    makers: dict[str, list[str]] = {}
    for run in records.values():
        revision = run.counts.get("extra", {}).get("revision")
        if revision is not None and run.run_id != record.run_id:
            makers.setdefault(str(revision), []).append(run.run_id)
    used = {str(model["revision"]) for model in record.models if model["revision"] is not None}
    return {revision: tuple(makers[revision]) for revision in sorted(used & makers.keys())}
