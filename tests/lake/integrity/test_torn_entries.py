"""Entries of a log in which one byte changed, and that are still JSON."""

from __future__ import annotations

from pathlib import Path

import pytest
from lake.integrity.corrupted_lake import assert_whole, find_entries, make_rows, repair

from rlt_data.lake import Lake


def change_byte(path: Path, text: bytes) -> None:
    """Change the first letter of `text`, where it occurs last."""
    content = path.read_bytes()
    position = content.rindex(text) + next(i for i, byte in enumerate(text) if chr(byte).isalnum())
    path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])


FIRST = [
    b'"configuration"', b'nullable\\"', b'"minReaderVersion"', b'"partitionColumns"', b'"format"',
    b'"provider"', b'"options"', b'"schemaString"', b'1,"minWriterVersion', b'"timestamp"',
]  # fmt: skip
LATER = [
    b'"dataChange"', b'"partitionValues"', b'"modificationTime"', b'"path"', b'"size"', b'"add"', b'"txn"',
    b'"appId"', b'"timestamp"', b'"commitInfo"',
]  # fmt: skip


@pytest.mark.parametrize(("entry", "text"), [*((0, text) for text in FIRST), *((-1, text) for text in LATER)])
def test_a_changed_byte_of_an_entry_is_found_and_repaired(
    entry: int, text: bytes, damaged: Path, whole: Path
) -> None:
    path = find_entries(damaged / "traces")[entry]
    change_byte(path, text)
    assert {found.table for found in Lake(damaged, create=False).check()} == {"traces"}
    repair(damaged)
    assert list(damaged.glob(f"_rlt_data/quarantine/*/traces/_delta_log/{path.name}"))
    make_rows(Lake(damaged))
    assert_whole(damaged, whole)


@pytest.mark.parametrize("text", [b'"add"', b'"size"'])
def test_a_changed_byte_of_the_newest_state_of_a_run_is_found(
    text: bytes, damaged: Path, whole: Path
) -> None:
    change_byte(find_entries(damaged / "runs")[-1], text)
    assert {found.table for found in Lake(damaged, create=False).check()} == {"runs"}
    repair(damaged)
    make_rows(Lake(damaged))
    assert_whole(damaged, whole)
