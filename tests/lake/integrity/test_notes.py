"""Damaged notes of the newest versions, and what they say of tables that are gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from lake.integrity.corrupted_lake import CORRUPTIONS, assert_whole, find_entries, make_rows, repair

from rlt_data.lake import Lake
from rlt_data.lake.newest_versions import name_note, read_newest

NOTED = ("runs", "_rlt_data")


@pytest.mark.parametrize("table", NOTED)
@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff\x00", b'{"version": "x"}', b'{"wersion": 3}', b'{"version": -7}']
)
def test_a_damaged_note_is_reported_and_repaired(
    content: bytes, table: str, damaged: Path, whole: Path
) -> None:
    note = damaged / name_note(table)
    before = note.read_bytes()
    note.write_bytes(content)
    assert [(found.kind, found.path) for found in Lake(damaged).check()] == [("note", name_note(table))]
    repair(damaged)
    assert note.read_bytes() == before
    assert_whole(damaged, whole)


@pytest.mark.parametrize("table", NOTED)
def test_a_note_far_beyond_the_log_is_written_anew(table: str, damaged: Path, whole: Path) -> None:
    entries = len(find_entries(damaged / table))
    (damaged / name_note(table)).write_text('{"version": 100000}')
    assert "100000" in next(found.what for found in Lake(damaged).check())
    repair(damaged)
    assert len(find_entries(damaged / table)) < entries + 10
    lake = Lake(damaged)
    assert read_newest(lake.folder, table) == len(find_entries(damaged / table)) - 1
    make_rows(lake)
    assert_whole(damaged, whole)


def test_the_log_of_the_record_of_migrations_is_removed_after_repairs(damaged: Path, whole: Path) -> None:
    for _ in range(3):
        CORRUPTIONS["a file is deleted"](damaged / "_rlt_data")
        repair(damaged)
    shutil.rmtree(damaged / "_rlt_data" / "_delta_log")
    repair(damaged)
    assert_whole(damaged, whole)
