"""Lakes written by older and newer versions of the program."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from rlt_data.errors import LakeError
from rlt_data.lake import Lake
from rlt_data.lake.location import resolve_location
from rlt_data.lake.migrations import MIGRATIONS, AddColumn, Migration, apply_migrations, open_record
from rlt_data.lake.tables.signature import sign_schema
from rlt_data.lake.tables.table import Table
from rlt_data.schemas import QUESTIONS, TABLES

MakeQuestions = Callable[..., pl.DataFrame]
LATER = (
    *MIGRATIONS,
    Migration("9999-answers", "Answers.", {}, (AddColumn("questions", "answer", pa.string()),)),
)


def make_older_lake(folder: Path, rows: pl.DataFrame) -> Lake:
    """Make a lake whose `questions` were written before the column `answer` existed."""
    lake = Lake(folder)
    lake.prepare()
    older = replace(QUESTIONS, columns=tuple(c for c in QUESTIONS.columns if c.name != "answer"))
    Table(str(folder / "questions"), older).append(rows, run_id="old")
    return lake


def test_a_new_lake_records_every_migration_once(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    assert lake.prepare() == [migration.name for migration in MIGRATIONS]
    assert lake.prepare() == Lake(tmp_path).prepare() == []
    record = open_record(resolve_location(tmp_path), None).to_arrow().to_pylist()
    # Rows of different commits have no order.
    record.sort(key=lambda row: row["number"])
    assert [row["migration"] for row in record] == [migration.name for migration in MIGRATIONS]


def test_a_lake_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    Lake(tmp_path).prepare()
    apply_migrations(resolve_location(tmp_path), None, LATER)
    for create in (True, False):
        with pytest.raises(
            LakeError, match="newer version of rlt-data: it has the migration '9999-answers'"
        ) as caught:
            Lake(tmp_path, create=create)
        assert "or later" in str(caught.value)


def test_an_older_lake_reads_null_where_it_lacks_a_column(
    tmp_path: Path, make_questions: MakeQuestions
) -> None:
    lake = make_older_lake(tmp_path, make_questions(1, 2))
    table = lake.table("questions")
    assert table.scan().collect().get_column("answer").null_count() == 2
    assert table.to_arrow().schema == QUESTIONS.arrow
    assert table.to_arrow(columns=["answer"]).column("answer").null_count == 2
    found = lake.sql("select count(*) as n, count(answer) as a, max(answer) as m from questions").to_pylist()
    assert found == [{"n": 2, "a": 0, "m": None}]


def test_an_older_lake_is_refused_for_writing_until_it_is_migrated(
    tmp_path: Path, make_questions: MakeQuestions
) -> None:
    lake = make_older_lake(tmp_path, make_questions(1))
    with pytest.raises(LakeError, match="has other columns"):
        lake.table("questions").append(make_questions(2), run_id="new")
    assert lake.table("questions").count() == 1


def test_a_migration_is_applied_once_and_older_rows_stay_readable(
    tmp_path: Path, make_questions: MakeQuestions
) -> None:
    older = make_older_lake(tmp_path / "lake", make_questions(1, 2))
    location = resolve_location(tmp_path / "lake")
    assert apply_migrations(location, None, LATER) == ["9999-answers"]
    version = DeltaTable(older.table("questions").uri).version()
    assert apply_migrations(location, None, LATER) == []
    assert DeltaTable(older.table("questions").uri).version() == version
    table = Table(older.table("questions").uri, QUESTIONS)
    table.append(make_questions(3).with_columns(answer=pl.lit("6")), run_id="new")
    assert sorted(table.scan().collect().get_column("answer").to_list(), key=str) == ["6", None, None]
    assert table.scan(1).collect().get_column("answer").null_count() == 2
    # A program that has the migration reads the same rows in SQL.
    shutil.rmtree(tmp_path / "lake" / "_rlt_data")
    found = Lake(tmp_path / "lake").sql("select answer, count(*) as n from questions group by 1 order by 1")
    assert found.to_pylist() == [{"answer": "6", "n": 1}, {"answer": None, "n": 2}]


def test_a_migration_recovers_from_a_crash_between_a_step_and_its_record(
    tmp_path: Path, make_questions: MakeQuestions
) -> None:
    older = make_older_lake(tmp_path, make_questions(1))
    location = resolve_location(tmp_path)
    LATER[-1].steps[0].apply(location, None)
    version = DeltaTable(older.table("questions").uri).version()
    assert apply_migrations(location, None, LATER) == ["9999-answers"]
    assert DeltaTable(older.table("questions").uri).version() == version


def test_schemas_change_only_with_a_migration() -> None:
    """Released schemas are signed: to change one, append a migration with its new signature."""
    released: dict[str, str] = {}
    for migration in MIGRATIONS:
        released |= migration.signatures
    assert {name: sign_schema(TABLES[name]) for name in released} == released


def test_migration_names_are_unique_and_their_columns_exist() -> None:
    names = [migration.name for migration in MIGRATIONS]
    assert names == sorted(set(names))
    for migration in MIGRATIONS:
        for step in migration.steps:
            column = next(c for c in TABLES[step.table].columns if c.name == step.column)
            assert column.nullable
            assert column.type == step.type
