"""Real corruptions of a real lake: each is found and repaired, and running again makes the rows anew."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lake.integrity.corrupted_lake import (
    CORRUPTIONS,
    TABLES,
    assert_whole,
    exchange_files,
    find_entries,
    find_files,
    flip_bit,
    make_rows,
    repair,
)

from rlt_data.errors import LakeError
from rlt_data.lake import Lake
from rlt_data.lake.newest_versions import name_note
from rlt_data.lake.sessions import find_state
from rlt_data.stages.rank import RankConfig, rank

# What a table cannot be opened with: its run cannot make its rows anew before a repair.
UNREADABLE = {
    "the newest entry is cut", "the newest entry is garbage", "an entry within is cut",
    "the first entry is deleted", "the first entry is emptied",
    *(name for name in CORRUPTIONS if "file" in name),
}  # fmt: skip


def make_metric(number: int) -> pl.DataFrame:
    """Make a row that no run writes."""
    return pl.DataFrame(
        {"metric_id": f"m{number}", "phase": "grpo", "step": number, "name": "loss", "value": 0.5}
    )


def test_a_whole_lake_is_not_damaged(whole: Path) -> None:
    assert_whole(whole, whole)
    reports = {report.table: report for report in Lake(whole).verify()}
    assert reports["traces"].files == 3
    assert reports["traces"].bytes == sum(file.stat().st_size for file in find_files(whole / "traces"))
    assert all(report.notes == () for report in reports.values())


@pytest.mark.parametrize(
    "name", [name if name == "traces" else pytest.param(name, marks=pytest.mark.slow) for name in TABLES]
)
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_corruption_is_found_and_repaired(corruption: str, name: str, damaged: Path, whole: Path) -> None:
    CORRUPTIONS[corruption](damaged / name)
    found = Lake(damaged, create=False).check()
    assert {damage.table for damage in found} == {name}
    if name != "rankings":
        with pytest.raises(LakeError, match=name):
            rank(Lake(damaged), RankConfig())
    repair(damaged)
    lost = [run for run in Lake(damaged).runs() if not run.finished]
    assert all(run.error and run.error.startswith("interrupted: a repair found") for run in lost)
    make_rows(Lake(damaged))
    assert_whole(damaged, whole)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_a_run_whose_rows_are_gone_is_not_called_finished(
    corruption: str, damaged: Path, whole: Path
) -> None:
    CORRUPTIONS[corruption](damaged / "rankings")
    if corruption in UNREADABLE:
        with pytest.raises(LakeError, match="rankings"):
            rank(Lake(damaged), RankConfig())
        repair(damaged)
        if "first entry" in corruption:  # It describes the table and names no rows.
            assert rank(Lake(damaged), RankConfig()).status == "already finished"
            assert_whole(damaged, whole)
            return
        (run,) = (run for run in Lake(damaged).runs() if run.stage == "rank")
        assert find_state(run) == "interrupted"
    summary = rank(Lake(damaged), RankConfig())
    assert summary.status == "finished"
    assert summary.notes[-1] == "12 rows of rankings were gone from the lake, and 12 were made anew"
    assert not [damage for damage in Lake(damaged).check() if damage.kind != "log"]
    if "log" in {damage.kind for report in Lake(damaged).verify() for damage in report.damages}:
        repair(damaged)  # The torn entry.
    assert_whole(damaged, whole)


@pytest.mark.parametrize("corruption", [name for name in CORRUPTIONS if "file" in name])
def test_a_corruption_of_runs_loses_no_rows(corruption: str, damaged: Path, whole: Path) -> None:
    CORRUPTIONS[corruption](damaged / "runs")
    assert {damage.table for damage in Lake(damaged, create=False).check()} == {"runs"}
    repair(damaged)
    make_rows(Lake(damaged))
    assert_whole(damaged, whole)


@pytest.mark.parametrize("repaired", [True, False])
@pytest.mark.parametrize("entries", [1, 2, 3, 6])
def test_the_newest_entries_of_runs_are_deleted(
    entries: int, repaired: bool, damaged: Path, whole: Path
) -> None:
    for path in find_entries(damaged / "runs")[-entries:]:
        path.unlink()
    found = Lake(damaged, create=False).check()
    assert [(damage.kind, damage.path) for damage in found if damage.table == "runs"] == [("version", "runs")]
    reports = Lake(damaged).verify()
    assert "runs" in {damage.table for report in reports for damage in report.damages}
    with pytest.raises(LakeError, match="newest states are gone"):
        rank(Lake(damaged), RankConfig(policy="all"))
    if repaired:
        done = Lake(damaged).repair(reports)
        assert len({damage.run_id for damage in done.interrupted}) == (entries + 1) // 2
        assert {find_state(run) for run in Lake(damaged).runs()} == {"finished", "interrupted"}
        assert Lake(damaged).check() == []
    make_rows(Lake(damaged))
    assert_whole(damaged, whole)


def test_the_newest_entry_of_runs_is_emptied(damaged: Path, whole: Path) -> None:
    CORRUPTIONS["the newest entry is emptied"](damaged / "runs")
    with pytest.raises(LakeError, match=r"table runs is damaged: .* is empty"):
        rank(Lake(damaged), RankConfig(policy="all"))
    assert rank(Lake(damaged), RankConfig()).status == "finished"
    repair(damaged)
    assert_whole(damaged, whole)


def empty(entry: Path) -> None:
    entry.write_bytes(b"")


EMPTIED = "the newest entry is emptied"


@pytest.mark.parametrize("query", ["SELECT count(*) FROM rankings", "FROM run_events", "FROM token_scores"])
@pytest.mark.parametrize("runs", [EMPTIED, "the newest entry is deleted", "an entry within is emptied"])
@pytest.mark.parametrize("rankings", ["the table is removed", EMPTIED])
def test_sql_refuses_where_the_record_of_rows_is_damaged_too(
    rankings: str, runs: str, query: str, damaged: Path
) -> None:
    CORRUPTIONS[rankings](damaged / "rankings")
    CORRUPTIONS[runs](damaged / "runs")
    with pytest.raises(LakeError, match=r"table runs (is damaged: .* is empty|.* newest states are gone)"):
        Lake(damaged).sql(query)
    assert Lake(damaged).sql(query, incomplete=True).num_columns


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM query_table(['traces'])",
        "SELECT count(*) FROM query('SELECT * FROM traces')",
        'SELECT count(*) FROM "traces@{newest}"',
        'SELECT count(*) FROM "traces@{newest}" JOIN "questions" USING (question_id)',
        "SELECT * FROM query('SELECT * FROM \"traces@{newest}\"')",
    ],
)
def test_sql_refuses_a_table_that_lost_rows_however_it_is_named(query: str, damaged: Path) -> None:
    newest = Lake(damaged).table("traces").version()
    text = query.format(newest=newest)
    assert Lake(damaged).sql(text).num_rows
    CORRUPTIONS[EMPTIED](damaged / "traces")
    with pytest.raises(LakeError, match=r"table traces lacks 4 of 4 rows that run .* \(generate\) wrote"):
        Lake(damaged).sql(text)
    assert Lake(damaged).sql(text, incomplete=True).num_rows
    with pytest.raises(LakeError, match="table traces lacks 4 of 4 rows"):
        Lake(damaged).sql("FROM traces", versions={"traces": newest})


def test_sql_refuses_an_older_version_from_the_entry_that_is_lost(damaged: Path) -> None:
    empty(find_entries(damaged / "traces")[2])
    lake = Lake(damaged)
    for query, versions in (('FROM "traces@2"', None), ("FROM traces", {"traces": 2})):
        with pytest.raises(LakeError, match=r"table traces is damaged: .*2\.json is empty"):
            lake.sql(query, versions=versions)
        assert lake.sql(query, versions=versions, incomplete=True).num_rows == 4
    assert lake.sql('FROM "traces@1"').num_rows == 4
    text = "SELECT '\"traces@2\"' AS text FROM questions"
    assert lake.sql(text).num_rows == 3


def test_vacuum_deletes_nothing_of_a_damaged_table(damaged: Path, whole: Path) -> None:
    for name, entry in (("traces", 2), ("runs", -1)):
        path = find_entries(damaged / name)[entry]
        content = path.read_bytes()
        empty(path)
        files = sorted(damaged.glob("*/*.parquet"))
        for dry_run in (True, False):
            with pytest.raises(LakeError, match=rf"no file is deleted: {name}/.* is empty"):
                Lake(damaged).vacuum(["traces"], retention_hours=0, dry_run=dry_run)
        assert sorted(damaged.glob("*/*.parquet")) == files
        path.write_bytes(content)
        Lake(damaged).vacuum(["questions"], retention_hours=0, dry_run=False)
    Lake(damaged).vacuum(retention_hours=0, dry_run=False)
    assert_whole(damaged, whole)


def test_a_lake_without_a_note_of_its_newest_run_is_read(damaged: Path, whole: Path) -> None:
    note = damaged / name_note("runs")
    note.unlink()
    assert_whole(damaged, whole)


@pytest.mark.parametrize("share", range(12))
@pytest.mark.parametrize("name", ["traces", "scores"])
def test_a_flipped_bit_is_found_and_repaired(share: int, name: str, damaged: Path, whole: Path) -> None:
    file = find_files(damaged / name)[0]
    flip_bit(file, 8 * file.stat().st_size * share // 12 + 3)
    with pytest.raises(LakeError, match=r"SHA-256|end as"):
        rank(Lake(damaged, verify=True), RankConfig(policy="all"))
    with pytest.raises(LakeError, match=file.name):
        Lake(damaged, verify=True).sql(f"SELECT * FROM {name}")
    with pytest.raises(LakeError, match=file.name):
        Lake(damaged).compact([name])
    found = [damage for report in Lake(damaged).verify() for damage in report.damages]
    assert [damage.path for damage in found] == [f"{name}/{file.name}"]
    assert found[0].run_id in {run.run_id for run in Lake(damaged).runs()}
    repair(damaged)
    assert list(damaged.glob(f"_rlt_data/quarantine/*/{name}/{file.name}"))
    make_rows(Lake(damaged))
    assert_whole(damaged, whole)


@given(number=st.integers(0, 10**6), position=st.integers(0, 10**9))
@settings(max_examples=30)
def test_every_flipped_bit_of_a_data_file_is_found(whole: Path, number: int, position: int) -> None:
    files = sorted(whole.glob("*/*.parquet"))
    file = files[number % len(files)]
    flip_bit(file, position)
    try:
        reports = Lake(whole, check=False).verify()
    finally:
        flip_bit(file, position)
    found = [damage.path for report in reports for damage in report.damages if damage.kind == "file"]
    assert found == [f"{file.parent.name}/{file.name}"]


def test_two_files_that_were_exchanged_are_found(damaged: Path, whole: Path) -> None:
    exchange_files(damaged / "traces")
    repair(damaged)
    make_rows(Lake(damaged))
    assert_whole(damaged, whole)


def test_runs_that_are_removed_are_recorded_again(damaged: Path, whole: Path) -> None:
    shutil.rmtree(damaged / "runs")
    found = Lake(damaged, create=False).check()
    assert {damage.kind for damage in found} == {"record", "version"}
    assert len(found) == 11
    repair(damaged)
    assert {run.status for run in Lake(damaged).runs()} == {"failed"}
    make_rows(Lake(damaged))
    assert_whole(damaged, whole)


def test_runs_that_are_removed_are_found_again_without_a_repair(damaged: Path, whole: Path) -> None:
    shutil.rmtree(damaged / "runs")
    make_rows(Lake(damaged))
    assert_whole(damaged, whole)


@pytest.mark.parametrize(
    "name",
    [
        "the table is removed",
        "a file is deleted",
        "the first entry is emptied",
        "the newest entry is deleted",
        "the newest entry is emptied",
        "the two newest entries are deleted",
    ],
)
def test_the_record_of_migrations_is_repaired(name: str, damaged: Path, whole: Path) -> None:
    CORRUPTIONS[name](damaged / "_rlt_data")
    assert {damage.table for damage in Lake(damaged, create=False, check=False).check()} == {"_rlt_data"}
    repair(damaged)
    assert_whole(damaged, whole)


def test_a_damaged_checkpoint_is_set_aside(damaged: Path) -> None:
    lake = Lake(damaged)
    for number in range(30):
        lake.table("metrics").append(make_metric(number), run_id="outside")
    checkpoint = next((damaged / "metrics" / "_delta_log").glob("*.checkpoint*.parquet"))
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert "metrics" in {damage.table for damage in Lake(damaged).check()}
    repair(damaged)
    assert Lake(damaged).table("metrics").count() == 30


@pytest.mark.parametrize("merged", [False, True])
def test_a_chunk_whose_file_was_set_aside_is_written_again(merged: bool, damaged: Path) -> None:
    table = Lake(damaged).table("metrics")
    for number in range(3):
        table.append(make_metric(number), run_id="outside")
    if merged:
        Lake(damaged).compact(["metrics"])
        Lake(damaged).vacuum(["metrics"], retention_hours=0, dry_run=False)
    assert not table.commit(make_metric(1), run_id="outside").written
    find_files(damaged / "metrics")[0].write_bytes(b"")
    repair(damaged)
    table = Lake(damaged).table("metrics")
    assert table.count() == (0 if merged else 2)
    written = [table.commit(make_metric(number), run_id="outside").written for number in range(3)]
    assert written.count(True) == (3 if merged else 1)
    keys = table.to_arrow(columns=["metric_id"]).column(0).to_pylist()
    assert sorted(keys) == ["m0", "m1", "m2"]
    assert not any(table.commit(make_metric(number), run_id="outside").written for number in range(3))
