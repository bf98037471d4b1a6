"""Runs: each state of a run is a row; the newest state of each is what users see."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl

from rlt_data.lake.table import TableState


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
        """Whether the run came to its end."""
        return self.status == "finished"


def read_newest_states(runs: pl.LazyFrame) -> list[RunRecord]:
    """Return the newest state of each run, in the order in which the runs started."""
    newest = runs.sort("sequence").group_by("run_id", maintain_order=True).last()
    rows = newest.sort("started_at", "run_id").collect().to_dicts()
    return [_read_record(row) for row in rows]


def read_first_state(runs: pl.LazyFrame, run_id: str) -> RunRecord:
    """Return the state in which a run first started: its inputs are pinned there."""
    rows = runs.filter(pl.col("run_id") == run_id).sort("sequence").head(1).collect().to_dicts()
    return _read_record(rows[0])


def _read_record(row: dict[str, Any]) -> RunRecord:
    return RunRecord(
        **{
            **row,
            "config": json.loads(row["config"]),
            "packages": json.loads(row["packages"]),
            "counts": json.loads(row["counts"]),
            "inputs": tuple(TableState(**state) for state in row["inputs"]),
            "outputs": tuple(TableState(**state) for state in row["outputs"]),
            "models": tuple(row["models"]),
        }
    )
