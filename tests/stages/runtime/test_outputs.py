"""Rows of a run: in any shape, once, whole or not at all, visible in time."""

from __future__ import annotations

import time
from pathlib import Path

import polars as pl
import pytest
from opened_run import open_run
from small_lake import MadeConfig, append_made, make_question, make_trace
from stages.runtime.counting import CountConfig, Row, make_row, open_count

from rlt_data.errors import LakeError, UsageError
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.lake.tables.log import name_entry
from rlt_data.stages.runtime.run import StageRun


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def test_rows_are_visible_to_the_stage_at_once_and_to_others_in_time(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLT_DATA_COMMIT_SECONDS", "0.2")
    with open_count(lake) as run:
        run.append("questions", [make_row(1)])
        assert lake.table("questions").count() == 0
        assert run.written("questions").collect().height == 1
        run.append("questions", [make_row(2)])
        time.sleep(0.25)
        run.append("questions", [make_row(3)])
        assert lake.table("questions").count() == 3
    monkeypatch.setenv("RLT_DATA_COMMIT_SECONDS", "often")
    with pytest.raises(UsageError, match="not a number"), open_count(lake, CountConfig(size=1)):
        pass


def test_rows_may_be_appended_in_any_shape_and_a_key_counts_once(lake: Lake) -> None:
    with open_count(lake) as run:
        run.append("questions", [make_row(1), make_row(1), make_row(2)])
        run.append("questions", pl.DataFrame([make_row(2), make_row(3)]))
        run.append("questions", pl.DataFrame([make_row(4)]).to_arrow())
        run.append("questions", [])
    assert run.summary.rows_out == lake.table("questions").count() == 4
    assert run.summary.rows_in == 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{**make_row(1), "colour": "red"}], "no column 'colour'"),
        ([{"question_id": "x"}], "is missing"),
        ([{**make_row(1), "source_row": "three"}], "do not fit"),
        ([make_row(1), {**make_row(2), "question": None}], "null"),
        ([make_row(1), {**make_row(2), "source_row": "three"}], "do not fit"),
    ],
)
def test_rows_that_do_not_fit_stop_the_stage_with_a_message(
    lake: Lake, rows: list[Row], message: str
) -> None:
    with pytest.raises(LakeError, match=message), open_count(lake) as run:
        run.append("questions", rows)
    assert lake.runs()[0].status == "failed"
    assert lake.table("questions").count() == 0


def test_a_row_is_stored_as_it_was_when_it_was_appended(lake: Lake) -> None:
    row = make_row(1)
    with open_count(lake) as run:
        run.append("questions", [row])
        row["question"] = "changed"
    assert lake.table("questions").to_arrow().column("question").to_pylist() == ["1?"]


def test_tables_must_be_declared(lake: Lake) -> None:
    with pytest.raises(LakeError, match="did not declare that it reads 'traces'"), open_count(lake) as run:
        run.read("traces")
    with pytest.raises(LakeError, match="did not declare that it writes 'traces'"), open_count(lake) as run:
        run.append("traces", [{"trace_id": "x"}])


def test_two_runs_may_write_the_same_keys_to_a_set_and_not_to_rows(lake: Lake) -> None:
    def reward(number: int) -> Row:
        return {
            "reward_id": hash_content(number),
            "score_id": "s",
            "trace_id": "t",
            "question_id": "q",
            "student": "small",
        }

    for size in (1, 2):
        with open_count(lake, CountConfig(size=size)) as run:
            run.append("rewards", [reward(1), reward(2)])
        assert run.summary.tables["rewards"] == 2
    assert lake.table("rewards").count() == 4
    with open_count(lake, CountConfig(size=3)) as run:
        # Another run commits one of the rows while this one is at work.
        with open_count(Lake(lake.uri), CountConfig(size=4)) as other:
            other.append("questions", [make_row(1)])
        run.append("questions", [make_row(1), make_row(2)])
    assert lake.table("questions").count() == 2
    assert run.summary.rows_out == 1
    assert run.summary.notes == ["skipped 1 rows that another run committed first"]


def test_a_run_whose_committed_rows_are_gone_at_its_end_is_not_finished(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    append_made(lake, "ingest", "questions", [make_question(0)])

    def start() -> StageRun:
        opened = Lake(lake.uri)
        return open_run(opened, "generate", MadeConfig(), inputs=("questions",), outputs=("traces",))

    run = start()
    run.append("traces", [make_trace(0, 0)])
    run.flush()
    newest = lake.table("traces").version()
    run.append("traces", [make_trace(0, 1), make_trace(0, 2)])
    run.flush()
    (Path(lake.uri) / "traces" / name_entry(newest)).write_bytes(b"")
    with pytest.raises(LakeError, match="traces has 2 of 3 rows that this run wrote"), run:
        pass
    assert Lake(lake.uri).run(run.run_id).status == "failed"
    with start() as run:
        assert run.resumed
        run.append("traces", [make_trace(0, sample) for sample in range(3)])
    assert run.summary.status == "finished"
    assert Lake(lake.uri).table("traces").count() == 3
