"""Damage to `runs`, to the record of migrations and to logs, alone and combined: one repair ends it."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from lake.integrity.corrupted_lake import (
    CORRUPTIONS,
    assert_whole,
    cut,
    find_entries,
    find_files,
    make_rows,
    repair,
)

from rlt_data.lake import Lake
from rlt_data.lake.tables.data_files import FILES_KEY


def break_state(table: Path) -> Path:
    """Break the JSON of a state in a file of `runs`, which stays valid Parquet."""
    file = next(file for file in find_files(table) if b'{"label' in file.read_bytes())
    file.write_bytes(file.read_bytes().replace(b'{"label', b';"label'))
    return file


def break_header(table: Path) -> Path:
    """Break the first page header of a file, whose size and end stay."""
    file = find_files(table)[0]
    content = bytearray(file.read_bytes())
    content[4:12] = b"\xff" * 8
    file.write_bytes(content)
    return file


def drop_hashes(table: Path) -> None:
    """Remove the SHA-256 of the files from a log, which version 0.1 did not record."""
    for path in find_entries(table):
        actions = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for action in actions:
            action.get("commitInfo", {}).pop(FILES_KEY, None)
        path.write_text("\n".join(json.dumps(action) for action in actions), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "hashes", "traces_removed"),
    [(break_state, False, False), (break_state, True, True), (break_header, False, True)],
)
def test_runs_that_cannot_be_read_are_reported(
    damage: Callable[[Path], Path], hashes: bool, traces_removed: bool, damaged: Path, whole: Path
) -> None:
    if not hashes:
        drop_hashes(damaged / "runs")
    file = damage(damaged / "runs")
    if traces_removed:
        shutil.rmtree(damaged / "traces")
    assert f"runs/{file.name}" in {found.path for found in Lake(damaged, create=False).check()}
    reports = Lake(damaged).verify()
    assert f"runs/{file.name}" in {found.path for report in reports for found in report.damages}
    repair(damaged)
    make_rows(Lake(damaged))
    assert_whole(damaged, whole)


COMBINED: dict[str, Callable[[Path], object]] = {
    "a file is deleted": CORRUPTIONS["a file is deleted"],
    "an entry is torn": lambda table: cut(find_entries(table)[-1], 0.5),
    "an entry is missing": lambda table: find_entries(table)[1].unlink(),
    "an entry is emptied": lambda table: find_entries(table)[-1].write_bytes(b""),
}
PAIRS = [("_rlt_data", "runs"), ("_rlt_data", "traces"), ("runs", "traces")]
# Each damage of each table once; all others are slow.
QUICK = {(first, second) for first, second in zip(COMBINED, [*list(COMBINED)[1:], *COMBINED], strict=False)}


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(*both, marks=[] if both in QUICK else pytest.mark.slow)
        for both in itertools.product(COMBINED, repeat=2)
    ],
)
def test_two_damaged_tables_are_repaired_at_once(
    first: str, second: str, pair: tuple[str, str], damaged: Path, whole: Path
) -> None:
    COMBINED[first](damaged / pair[0])
    COMBINED[second](damaged / pair[1])
    assert Lake(damaged, create=False, check=False).check()
    repair(damaged)
    make_rows(Lake(damaged))
    assert_whole(damaged, whole)


@pytest.mark.parametrize("removed", ["traces", "_rlt_data"])
@pytest.mark.parametrize("corruption", ["a file is deleted", "the newest entry is emptied"])
def test_runs_are_damaged_and_another_table_is_removed(
    corruption: str, removed: str, damaged: Path, whole: Path
) -> None:
    CORRUPTIONS[corruption](damaged / "runs")
    shutil.rmtree(damaged / removed)
    repair(damaged)
    make_rows(Lake(damaged))
    assert_whole(damaged, whole)


@pytest.mark.parametrize(
    "corruption", ["the newest entry is emptied", "a file is deleted", "the table is removed"]
)
def test_the_record_of_migrations_and_a_migrated_table_are_damaged(
    corruption: str, damaged: Path, whole: Path
) -> None:
    CORRUPTIONS[corruption](damaged / "_rlt_data")
    cut(find_entries(damaged / "rankings")[-1], 0.5)
    repair(damaged)
    make_rows(Lake(damaged))
    assert_whole(damaged, whole)
