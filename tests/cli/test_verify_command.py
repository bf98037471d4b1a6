"""`verify`, and what `doctor`, `sql` and the stages do with a damaged lake."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import QuickProgram
from lake.integrity.corrupted_lake import CORRUPTIONS, find_entries, find_files, flip_bit, make_rows

from rlt_data.lake import Lake

RANK = ("rank", "--lake", "lake", "--quiet")


@pytest.fixture
def program(tmp_path: Path) -> QuickProgram:
    make_rows(Lake(tmp_path / "lake"))
    return QuickProgram(tmp_path)


def test_a_whole_lake(program: QuickProgram) -> None:
    assert "nothing is damaged" in program.succeed("verify", "--lake", "lake")
    assert "nothing is missing" in program.succeed("doctor", "--lake", "lake")
    assert "already finished" in program.succeed(*RANK, "--verify")
    program.succeed("sql", "--verify", "SELECT count(*) FROM traces", "--lake", "lake")


def test_a_lost_commit_is_found_by_every_command(program: QuickProgram) -> None:
    find_entries(program.folder / "lake" / "traces")[-1].unlink()
    lost = next(run for run in reversed(Lake(program.folder / "lake").runs()) if run.stage == "generate")
    for arguments in (("doctor", "--lake", "lake"), ("verify", "--lake", "lake")):
        done = program(*arguments)
        assert done.returncode == 1
        assert "lacks 4 of 4 rows" in done.stdout
        assert lost.run_id[:12] in done.stdout
    done = program(*RANK)
    assert done.returncode == 1
    assert f"table traces lacks 4 of 4 rows that run {lost.run_id} (generate) wrote" in done.stderr
    assert "run generate again, which makes them anew" in done.stderr
    # The run itself is not called finished: it makes its rows anew.
    make_rows(Lake(program.folder / "lake"))
    assert "already finished" in program.succeed(*RANK)


def test_a_flipped_bit_is_found_on_request_and_repaired(program: QuickProgram) -> None:
    file = find_files(program.folder / "lake" / "scores")[0]
    flip_bit(file, 2000)
    for arguments in ((*RANK, "--verify"), ("sql", "--verify", "FROM scores", "--lake", "lake")):
        done = program(*arguments)
        assert done.returncode == 1
        assert file.name in done.stderr
        assert "rlt-data verify --repair" in done.stderr
    done = program("verify", "--lake", "lake", "--json")
    assert done.returncode == 1
    (damage,) = [d for report in json.loads(done.stdout)["tables"] for d in report["damages"]]
    assert (damage["kind"], damage["path"], damage["rows"]) == ("file", f"scores/{file.name}", 4)
    answer = program.succeed("verify", "--repair", "--lake", "lake")
    assert "set 1 files aside, into _rlt_data/quarantine/" in answer
    assert f"score {damage['run_id'][:12]}: scores lacks 4 of 4 rows" in answer
    assert "nothing is damaged" in program.succeed("verify", "--lake", "lake")
    assert "ready" in program.succeed("doctor", "--lake", "lake")
    assert "interrupted" in program.succeed("log", "--lake", "lake")


@pytest.mark.parametrize("removed", [True, False])
def test_sql_refuses_tables_that_have_lost_rows_unless_told(removed: bool, program: QuickProgram) -> None:
    traces = program.folder / "lake" / "traces"
    shutil.rmtree(traces) if removed else find_entries(traces)[-1].unlink()
    lost = next(run for run in reversed(Lake(program.folder / "lake").runs()) if run.stage == "generate")
    for query in ("FROM traces", "SELECT count(*) FROM Traces", "SELECT token FROM token_scores LIMIT 1"):
        done = program("sql", query, "--lake", "lake")
        assert done.returncode == 1
        assert "table traces lacks 4 of 4 rows that run" in done.stderr
        assert "`rlt-data verify`" in done.stderr
        assert "--incomplete" in done.stderr
    done = program("sql", "SELECT count(*) AS n FROM traces", "--incomplete", "-f", "csv", "--lake", "lake")
    assert done.returncode == 0
    assert done.stdout.split() == ["n", "0" if removed else "8"]
    assert done.stderr.startswith("warning: table traces lacks 4 of 4 rows that run ")
    assert lost.run_id in done.stderr
    # Other tables, and an older version, are read as ever.
    for query in ("FROM questions", "SELECT count(*) AS traces FROM scores", "SHOW TABLES"):
        assert program.succeed("sql", query, "--lake", "lake")
    if not removed:
        program.succeed("sql", 'FROM "traces@1"', "--lake", "lake")


def test_sql_refuses_runs_that_have_lost_states(program: QuickProgram) -> None:
    find_entries(program.folder / "lake" / "runs")[-1].unlink()
    for arguments in (("doctor",), ("verify",), ("sql", "FROM runs"), ("sql", "FROM run_events")):
        done = program(*arguments, "--lake", "lake")
        assert done.returncode == 1
        assert "newest states are gone" in done.stdout + done.stderr
    program.succeed("sql", "FROM runs", "--incomplete", "--lake", "lake")
    # It is not known what other tables should have.
    assert "newest states are gone" in program.fail(1, "sql", "FROM traces", "--lake", "lake")
    assert "finished" in program.succeed(*RANK)
    assert "nothing is damaged" in program.succeed("verify", "--lake", "lake")


@pytest.mark.parametrize("name", ["traces", "scores", "questions"])
def test_a_damaged_page_that_cannot_be_read_is_named(name: str, program: QuickProgram) -> None:
    for file in find_files(program.folder / "lake" / name):
        content = bytearray(file.read_bytes())
        content[4 : len(content) // 2] = b"\xff" * (len(content) // 2 - 4)
        file.write_bytes(content)
    commands = [
        ("rank", "--policy", "all", "--lake", "lake", "--quiet"),
        ("rank", "--policy", "all", "--where", "trace_id IS NOT NULL", "--lake", "lake", "--quiet"),
        ("sql", f"FROM {name}", "--lake", "lake"),
        ("sql", f"FROM {name}", "-f", "csv", "-o", "out", "--lake", "lake"),
    ]
    for arguments in commands:
        done = program(*arguments)
        assert done.returncode == 1, arguments
        assert done.stderr.startswith(f"error: table {name} is damaged: {name}/part-"), done.stderr
        assert "has not the recorded SHA-256" in done.stderr
        assert "`rlt-data verify`" in done.stderr
        assert "defect" not in done.stderr + done.stdout


def test_a_lake_that_does_not_exist_is_not_verified(program: QuickProgram) -> None:
    done = program("verify", "--lake", "nowhere")
    assert done.returncode == 1
    assert "there is no lake here" in done.stderr
    assert not (program.folder / "nowhere").exists()


@pytest.mark.parametrize("corruption", ["the table is removed", "a file is deleted"])
def test_log_shows_runs_whose_rows_are_gone(corruption: str, program: QuickProgram) -> None:
    lake = ("--lake", "lake")
    for arguments in (("log",), ("tables",), ("lineage",)):
        assert program(*arguments, *lake).stderr == ""
    CORRUPTIONS[corruption](program.folder / "lake" / "traces")
    damaged = {d.run_id for d in Lake(program.folder / "lake").check() if d.run_id}
    assert len(damaged) == (3 if "table" in corruption else 1)
    for arguments in (("log",), ("tables",), ("lineage",)):
        done = program(*arguments, *lake)
        # Lineage reads the tables.
        assert done.returncode == int(arguments == ("lineage",) and "file" in corruption)
        assert done.stderr.startswith("warning: the lake is damaged: traces")
        assert "`rlt-data verify` names all damage" in done.stderr
    shown = program("log", *lake).stdout
    assert "rows lost: the run finished, and rows that it wrote are gone or damaged" in shown
    runs = json.loads(program("log", "--json", *lake).stdout)
    assert {run["run_id"] for run in runs if run["state"] == "rows lost"} == damaged
    assert {run["state"] for run in runs if run["run_id"] not in damaged} == {"finished"}
    (one,) = list(damaged)[:1]
    assert "state: rows lost" in program("log", one, *lake).stdout
