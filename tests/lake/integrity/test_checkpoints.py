"""Damaged checkpoints: readers open a table by them, so `verify` compares them with the log entries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lake.integrity.corrupted_lake import flip_bit, repair

from rlt_data.lake import Lake

ROWS = 30


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a table of 30 commits."""
    folder = tmp_path_factory.mktemp("checkpointed") / "lake"
    table = Lake(folder).table("metrics")
    for number in range(ROWS):
        row = {"metric_id": f"m{number}", "phase": "grpo", "step": number, "name": "loss", "value": 0.5}
        table.append(pl.DataFrame(row), run_id="outside")
    return next((folder / "metrics" / "_delta_log").glob("*.checkpoint.parquet"))


def find_lake(checkpoint: Path) -> Path:
    return checkpoint.parents[2]


def rewrite(change: Callable[[list[dict[str, Any]]], object]) -> Callable[[Path], object]:
    """Return a function that changes the actions of a checkpoint."""

    def apply(path: Path) -> None:
        found = pq.read_table(path)
        rows = found.to_pylist()
        change(rows)
        pq.write_table(pa.Table.from_pylist(rows, schema=found.schema), path)

    return apply


def find_action(rows: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(row for row in rows if row[kind] is not None)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "no files": rewrite(
        lambda rows: rows.__setitem__(slice(None), [row for row in rows if row["add"] is None])
    ),
    "another size": rewrite(lambda rows: find_action(rows, "add")["add"].update(size=7)),
    "other statistics": rewrite(
        lambda rows: find_action(rows, "add")["add"].update(stats='{"numRecords":9}')
    ),
    "another transaction": rewrite(lambda rows: find_action(rows, "txn")["txn"].update(version=3)),
    "one transaction less": rewrite(lambda rows: rows.remove(find_action(rows, "txn"))),
    "other properties": rewrite(
        lambda rows: find_action(rows, "metaData")["metaData"].update(configuration=[])
    ),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_found_and_set_aside(
    damage: str, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content, last = checkpoint.read_bytes(), checkpoint.with_name("_last_checkpoint").read_bytes()
    lake = find_lake(checkpoint)
    assert not [found for report in Lake(lake).verify() for found in report.damages]
    try:
        DAMAGES[damage](checkpoint)
        found = [found.path for report in Lake(lake).verify() for found in report.damages]
        assert found == [f"metrics/_delta_log/{checkpoint.name}"]
        repair(lake)
        assert not checkpoint.exists()
        assert Lake(lake).table("metrics").count() == ROWS
    finally:
        checkpoint.write_bytes(content)
        checkpoint.with_name("_last_checkpoint").write_bytes(last)


def test_a_flipped_bit_of_a_checkpoint_does_not_change_a_table_unnoticed(checkpoint: Path) -> None:
    lake, size = find_lake(checkpoint), 8 * checkpoint.stat().st_size
    expected = Lake(lake).table("metrics").to_arrow()
    for share in range(24):
        flip_bit(checkpoint, size * share // 24 + 5)
        try:
            if not any(report.damages for report in Lake(lake).verify()):
                assert Lake(lake).table("metrics").to_arrow().equals(expected)
        finally:
            flip_bit(checkpoint, size * share // 24 + 5)
