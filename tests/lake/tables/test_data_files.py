"""The Parquet files of a table, and the record of them that each commit carries."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
from deltalake import DeltaTable

from rlt_data.lake import Lake
from rlt_data.lake.tables.data_files import FileRecord, read_file_records

MakeQuestions = Callable[..., pl.DataFrame]


def describe(file: Path) -> FileRecord:
    return FileRecord(hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size)


def test_each_commit_records_its_files(lake: Lake, make_questions: MakeQuestions) -> None:
    table = lake.table("questions")
    for number in range(30):
        table.append(make_questions(number, 100 + number), run_id=f"run-{number}")
    files = {file.name: describe(file) for file in Path(table.uri).glob("*.parquet")}
    records = [read_file_records(version.metadata) for version in table.versions()]
    assert {path: record for found in records for path, record in found.items()} == files
    assert [len(found) for found in records] == [1] * 30 + [0]
    assert {version.rows_added for version in table.versions()[:-1]} == {2}
    # Commits are still joined into checkpoints, and readers find what delta-rs itself writes.
    assert Path(table.uri, "_delta_log", "_last_checkpoint").exists()
    sizes = DeltaTable(table.uri).get_add_actions(flatten=True)
    assert sum(sizes.column("num_records").to_pylist()) == 60
    assert sum(sizes.column("size_bytes").to_pylist()) == sum(record.size for record in files.values())


def test_a_compaction_records_what_it_writes(lake: Lake, make_questions: MakeQuestions) -> None:
    table = lake.table("questions")
    for number in range(5):
        table.append(make_questions(number), run_id=f"run-{number}")
    before = table.scan().sort("question_id").collect()
    lake.compact()
    newest = table.versions()[0]
    (path, record), *others = read_file_records(newest.metadata).items()
    assert not others
    assert describe(Path(table.uri, path)) == record
    assert newest.metadata["rlt_data.stage"] == "compact"
    assert table.scan().sort("question_id").collect().equals(before)
    assert pq.ParquetFile(Path(table.uri, path)).num_row_groups == 1
    assert lake.compact(["questions"])[0].version == newest.version


def test_two_tables_that_append_to_one_location_see_each_others_keys(
    lake: Lake, make_questions: MakeQuestions
) -> None:
    one, other = lake.table("questions"), Lake(lake.uri).table("questions")
    for number in range(6):
        (one if number % 2 else other).append(make_questions(number, number + 1), run_id="r")
    assert one.count() == 7
