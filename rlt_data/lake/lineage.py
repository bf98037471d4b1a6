"""Lineage: what each run read and wrote, and which runs had made what it read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from rlt_data.errors import LakeError
from rlt_data.lake.catalog import Catalog
from rlt_data.lake.runs import RunRecord, find_run, list_runs


@dataclass(frozen=True)
class LineageStep:
    """One run in a lineage.

    `made_by` has, for each table read, the runs whose rows stood in it; `trained_by`, for each revision
    of a model used, the runs of this lake that trained these very weights.
    """

    run: RunRecord
    depth: int
    made_by: Mapping[str, tuple[str, ...]]
    trained_by: Mapping[str, tuple[str, ...]]


def trace_lineage(catalog: Catalog, run_id: str | None = None) -> list[LineageStep]:
    """Return the steps that led to a run, that run first (depth 0); all runs where none is named.

    Who made a table's rows is read from their `run_id` column at the version that was read. A version
    whose files were vacuumed away is answered from the newest version, limited to runs started before.
    """
    records = {record.run_id: record for record in list_runs(catalog)}
    if run_id is None:
        return [
            LineageStep(record, 0, find_makers(catalog, record, records), find_trainings(record, records))
            for record in records.values()
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
    """Return, for each table that a run read, the runs that had written rows of it by then."""
    made_by = {}
    for state in record.inputs:
        table = catalog.table(state.table)
        try:
            frame = table.scan(state.version)
        except LakeError:
            frame = table.scan()
        makers = frame.select(pl.col("run_id").unique()).collect().get_column("run_id").to_list()
        made_by[state.table] = tuple(
            sorted(
                (m for m in makers if m not in records or records[m].started_at <= record.started_at),
                key=lambda maker: (maker not in records, maker),
            )
        )
    return made_by


def find_trainings(record: RunRecord, records: Mapping[str, RunRecord]) -> dict[str, tuple[str, ...]]:
    """Return, for the revision of each model that a run used, the runs whose result it is."""
    makers: dict[str, list[str]] = {}
    for run in records.values():
        revision = run.counts.get("extra", {}).get("revision")
        if revision is not None and run.run_id != record.run_id:
            makers.setdefault(str(revision), []).append(run.run_id)
    used = {str(model["revision"]) for model in record.models if model["revision"] is not None}
    return {revision: tuple(makers[revision]) for revision in sorted(used & makers.keys())}
