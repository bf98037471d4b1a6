"""The location of a lake, opening it, runs by id, lineage, compaction and vacuum."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from opened_run import open_run

from rlt_data.errors import LakeError
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.lake.tables.writer import describe_failure
from rlt_data.stages.runtime.contract import RunField, StageConfig

MakeQuestions = Callable[..., pl.DataFrame]


class CopyConfig(StageConfig):
    number: RunField[int] = 0


def write_questions(lake: Lake, numbers: list[int], make_questions: MakeQuestions) -> str:
    with open_run(lake, "ingest", CopyConfig(number=sum(numbers)), inputs=(), outputs=("questions",)) as run:
        run.append("questions", make_questions(*numbers))
    return run.run_id


def write_traces(lake: Lake, *, fail: bool = False) -> str:
    inputs, outputs = ("questions",), ("traces",)
    with open_run(lake, "generate", CopyConfig(), inputs=inputs, outputs=outputs) as run:
        for question_id in run.read("questions").collect().get_column("question_id"):
            row = {
                "trace_id": hash_content(question_id),
                "question_id": question_id,
                "sample_index": 0,
                "origin": "generated",
                "completion": "x",
                "state": "closed",
                "truncated": False,
            }
            run.append("traces", [row])
        if fail:
            raise LakeError("the disk is full")
    return run.run_id


def test_the_location_comes_from_argument_environment_or_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RLT_DATA_LAKE", raising=False)
    assert Lake().uri == str(tmp_path / "lake")
    monkeypatch.setenv("RLT_DATA_LAKE", str(tmp_path / "other"))
    assert Lake().uri == str(tmp_path / "other")
    assert Lake("named").uri == str(tmp_path / "named")
    assert Lake(f"file://{tmp_path}/by%20uri").uri == str(tmp_path / "by uri")
    assert not (tmp_path / "named").exists()


def test_unusual_folder_names_work(tmp_path: Path, make_questions: MakeQuestions) -> None:
    lake = Lake(tmp_path / 'it\'s a "lake" % ü {x} #1 漢🙂?*')
    lake.table("questions").append(make_questions(1), run_id="r")
    assert lake.table("questions").scan().collect().height == 1
    assert lake.sql("select count(*) as n from questions").to_pylist() == [{"n": 1}]
    assert lake.sql('select count(*) as n from "questions@0"').to_pylist() == [{"n": 0}]


@pytest.mark.parametrize(
    "uri", ["ftp://host/lake", "file://host/lake", "a[1]", "a|b", "a^b", "a%20b", "a\nb"]
)
def test_an_unusable_location_is_refused(uri: str) -> None:
    with pytest.raises(LakeError):
        Lake(uri)


def test_a_file_is_not_a_lake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LakeError, match="this is a file"):
        Lake(tmp_path / "file")


def test_a_missing_lake_is_refused_where_it_must_exist(tmp_path: Path, make_questions: MakeQuestions) -> None:
    with pytest.raises(LakeError, match="rlt-data init"):
        Lake(tmp_path / "lake", create=False)
    Lake(tmp_path / "lake").prepare()
    Lake(tmp_path / "lake", create=False).table("questions").append(make_questions(1), run_id="r")


def test_runs_are_found_by_id_or_prefix(lake: Lake, make_questions: MakeQuestions) -> None:
    first = write_questions(lake, [1], make_questions)
    second = write_questions(lake, [2], make_questions)
    assert [run.run_id for run in lake.runs()] == [first, second]
    assert lake.run(first[:12]).run_id == lake.run(first).run_id == first
    with pytest.raises(LakeError, match="2 run"):
        lake.run("")
    with pytest.raises(LakeError, match="no run"):
        lake.run("zz")


def test_lineage_leads_back_to_the_first_run(lake: Lake, make_questions: MakeQuestions) -> None:
    one = write_questions(lake, [1], make_questions)
    two = write_questions(lake, [2], make_questions)
    traced = write_traces(lake)
    later = write_questions(lake, [3], make_questions)
    steps = lake.lineage(traced)
    assert (steps[0].run.run_id, steps[0].depth) == (traced, 0)
    assert {step.run.run_id for step in steps[1:]} == {one, two}
    assert set(steps[0].made_by["questions"]) == {one, two}
    assert {step.run.run_id for step in lake.lineage()} == {one, two, traced, later}


def test_lineage_is_recorded_in_the_delta_log(lake: Lake, make_questions: MakeQuestions) -> None:
    write_questions(lake, [1], make_questions)
    traced = write_traces(lake)
    commit = lake.table("traces").versions()[0]
    assert commit.run_id == traced
    assert commit.metadata["rlt_data.stage"] == "generate"
    assert commit.metadata["rlt_data.fingerprint"] == lake.run(traced).fingerprint
    assert commit.metadata["rlt_data.inputs"] == '{"questions": 1}'


def test_compaction_keeps_rows_digest_and_older_versions(lake: Lake, make_questions: MakeQuestions) -> None:
    table = lake.table("questions")
    for number in range(6):
        table.append(make_questions(number), run_id="r")
    before = table.state()
    done = {report.table: report for report in lake.compact()}
    assert (done["questions"].files_before, done["questions"].files_after) == (6, 1)
    after = table.state()
    assert (after.rows, after.digest) == (before.rows, before.digest)
    assert after.version > before.version
    assert table.count(3) == 3
    assert not table.commit(make_questions(2), run_id="r").written


def test_a_vacuum_keeps_what_unfinished_runs_have_pinned(lake: Lake, make_questions: MakeQuestions) -> None:
    table = lake.table("questions")
    for number in range(4):
        write_questions(lake, [number], make_questions)
    pinned = table.version()
    with pytest.raises(LakeError, match="disk is full"):
        write_traces(lake, fail=True)
    write_questions(lake, [9], make_questions)
    lake.compact()
    planned = lake.vacuum(["questions"], retention_hours=0)[0]
    assert planned.dry_run
    assert (planned.kept_versions, len(planned.files)) == ((pinned,), 1)
    assert table.count(pinned) == 4
    lake.vacuum(retention_hours=0, dry_run=False)
    assert table.scan(pinned).collect().height == 4
    assert table.scan().collect().height == 5
    with pytest.raises(LakeError, match="was vacuumed"):
        table.scan(5)
    with pytest.raises(LakeError, match="was vacuumed"):
        lake.sql('select * from "questions@5"')
    lake.vacuum(retention_hours=0, dry_run=False, drop_pinned=True)
    with pytest.raises(LakeError, match="was vacuumed"):
        table.scan(pinned)
    assert table.scan().collect().height == 5


def test_a_damaged_lake_gives_a_lake_error(lake: Lake, make_questions: MakeQuestions) -> None:
    table = lake.table("questions")
    table.append(make_questions(1), run_id="r")
    for file in Path(table.uri).glob("*.parquet"):
        file.unlink()
    with pytest.raises(LakeError, match=r"part-.*parquet is missing \(rows of run r\)"):
        lake.sql("select * from questions")
    for read in (table.to_arrow, table.state):
        with pytest.raises(LakeError, match=r"part-.*parquet is missing \(rows of run r\)"):
            read()
    for entry in Path(table.uri, "_delta_log").glob("*.json"):
        entry.write_text("{broken")
    with pytest.raises(LakeError, match="cannot be read"):
        Lake(lake.uri).table("questions").count()
    with pytest.raises(LakeError, match="cannot be read"):
        Lake(lake.uri).table("questions").append(make_questions(2), run_id="r")


def test_a_storage_error_is_described_in_one_line_without_its_backtrace() -> None:
    message = (
        "Kernel error: Json error\n   0: <unknown>\n             at ./nptl/pthread_create.c:442:8\n  1: main"
    )
    assert describe_failure(OSError(message)) == "Kernel error: Json error"
    message = "not supported\n  \x1b[31m↳\x1b[0m no credentials\n    \x1b[31m↳\x1b[0m refused\n"
    assert describe_failure(OSError(message)) == "not supported: no credentials: refused"


def test_a_table_that_cannot_be_written_gives_a_lake_error(lake: Lake, make_questions: MakeQuestions) -> None:
    lake.prepare()
    Path(lake.uri, "questions").write_text("a file instead of a folder")
    with pytest.raises(LakeError, match="cannot be"):
        lake.table("questions").append(make_questions(2), run_id="r")
