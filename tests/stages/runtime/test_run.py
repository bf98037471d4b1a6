"""Runs of stages: fingerprints, resumption, exactly-once rows, rejects, counts, fences, failures."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opened_run import open_run
from stages.runtime.counting import CountConfig, count_all, count_missing, make_row, open_count

from rlt_data.errors import UsageError
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.lake.tables.commits import FenceLostError
from rlt_data.stages.runtime.contract import StageConfig, StageSummary
from rlt_data.stages.runtime.declaration import StageDeclaration
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.stage import Stage


@dataclass(frozen=True)
class FakeModel:
    role: str
    name: str
    model: str
    revision: str | None

    @property
    def content_key(self) -> str:
        return self.revision or self.model


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def list_statuses(lake: Lake) -> list[tuple[str, int]]:
    rows = lake.sql("select status, attempt, sequence from run_events order by attempt, sequence").to_pylist()
    return [(row["status"], row["attempt"]) for row in rows]


def test_a_run_is_recorded_from_start_to_end(lake: Lake) -> None:
    summary = count_all(lake)
    record = lake.run(summary.run_id)
    assert list_statuses(lake) == [("started", 0), ("finished", 0)]
    assert (summary.status, summary.rows_in, summary.rows_out, summary.rejected) == ("finished", 6, 4, 2)
    assert summary.tables == {"questions": 4, "rewards": 0, "rejects": 2}
    assert summary.tokens == 60
    assert summary.extra == {"evens": 3, "rejected_third": 2}
    assert record.config == {"size": 6, "batch": 1}
    assert record.counts == summary.model_dump(mode="json")
    assert {state.table: state.rows for state in record.outputs} == summary.tables
    assert "deltalake" in record.packages
    assert record.ended_at is not None
    assert record.error is None
    stored = lake.table("questions").to_arrow()
    assert set(stored.column("run_id").to_pylist()) == {summary.run_id}


def test_a_finished_run_is_not_run_again(lake: Lake) -> None:
    first = count_all(lake)
    again = count_all(lake)
    assert again.status == "already finished"
    assert again.model_copy(update={"status": "finished"}) == first
    assert list_statuses(lake) == [("started", 0), ("finished", 0)]


def test_fields_that_do_not_change_the_result_are_not_identity(lake: Lake) -> None:
    first = count_all(lake)
    assert count_all(lake, CountConfig(batch=64)).status == "already finished"
    assert count_all(lake, CountConfig(size=7)).run_id != first.run_id


def test_inputs_count_by_their_rows_not_by_their_versions(lake: Lake) -> None:
    count_all(lake)

    declaration = StageDeclaration("read", "", reads=("questions",), writes=("rewards",))
    read = partial(Stage(lambda lake, config: Preparation(lambda run: None), StageConfig, declaration), lake)

    first = read(StageConfig())
    lake.compact()
    assert read(StageConfig()).status == "already finished"
    count_all(lake, CountConfig(size=9))
    assert read(StageConfig()).run_id != first.run_id


@pytest.mark.parametrize(
    ("model", "same"),
    [
        (FakeModel("student", "another name", "other/path", "r1"), True),
        (FakeModel("student", "s", "m", "r2"), False),
        (FakeModel("teacher", "s", "m", "r1"), False),
    ],
)
def test_models_count_by_role_and_revision(lake: Lake, model: FakeModel, same: bool) -> None:
    def use(model: FakeModel, scheme: int = 1, text: str = "a") -> str:
        preparation = Preparation(lambda run: None, [model], {"format": text}, scheme_version=scheme)
        use = Stage(lambda lake, config: preparation, StageConfig, StageDeclaration("use", ""))
        return use(lake, StageConfig()).run_id

    first = use(FakeModel("student", "s", "m", "r1"))
    assert (use(model) == first) is same
    assert use(FakeModel("student", "s", "m", "r1"), scheme=2) != first
    assert use(FakeModel("student", "s", "m", "r1"), text="b") != first
    assert lake.run(first).models[0]["revision"] == "r1"


def test_force_runs_again_as_the_next_attempt(lake: Lake) -> None:
    first = count_all(lake)
    second = count_all(lake, force=True)
    assert second.run_id != first.run_id
    with pytest.raises(UsageError):
        count_all(lake, force=True, stop_at=3)
    resumed = count_all(lake, force=True)
    attempts = [(status, attempt) for status, attempt in list_statuses(lake) if attempt == 2]
    assert attempts == [("started", 2), ("failed", 2), ("resumed", 2), ("finished", 2)]
    assert resumed.run_id not in (first.run_id, second.run_id)
    assert count_all(lake).run_id == resumed.run_id


@pytest.mark.parametrize("stage", [count_all, count_missing])
def test_an_interrupted_run_resumes_as_the_same_run(
    lake: Lake, tmp_path: Path, stage: Callable[..., StageSummary]
) -> None:
    for stop_at in (1, 4, 5):
        with pytest.raises(UsageError):
            stage(lake, stop_at=stop_at)
    summary = stage(lake)
    straight = stage(Lake(tmp_path / "straight"))
    clocks = {"seconds", "tokens_per_second"}
    assert summary.model_dump(exclude=clocks) == straight.model_dump(exclude=clocks)
    for table in ("questions", "rejects"):
        key = lake.table(table).schema.key
        one = lake.table(table).scan().sort(key).collect()
        assert one.equals(Lake(tmp_path / "straight").table(table).scan().sort(key).collect())
    statuses = [status for status, _ in list_statuses(lake)]
    assert statuses == ["started", "failed", "resumed", "failed", "resumed", "failed", "resumed", "finished"]


def test_a_resumed_run_reads_what_it_first_pinned(lake: Lake) -> None:
    count_all(lake, CountConfig(size=3))

    def read_and_fail() -> None:
        with open_run(lake, "count", CountConfig(), outputs=("questions",), pins=("questions",)) as run:
            assert run.read("questions").collect().height == 2
            raise UsageError("stopped")

    with pytest.raises(UsageError):
        read_and_fail()
    count_missing(lake, CountConfig(size=9))
    assert lake.table("questions").count() == 9
    lake.compact()
    lake.vacuum(retention_hours=0, dry_run=False)
    with open_run(lake, "count", CountConfig(), outputs=("questions",), pins=("questions",)) as resumed:
        assert resumed.read("questions").collect().height == 2
        assert resumed.written("questions").collect().height == 9
    assert list_statuses(lake).count(("resumed", 0)) == 1


def test_failures_are_recorded_with_their_message_and_keep_their_rows(lake: Lake) -> None:

    def fail(number: int, error: BaseException) -> None:
        with open_count(lake) as run:
            run.append("questions", [make_row(number)])
            raise error

    with pytest.raises(ZeroDivisionError):
        fail(1, ZeroDivisionError("division by zero"))
    record = lake.runs()[0]
    assert (record.status, record.error) == ("failed", "ZeroDivisionError: division by zero")
    assert lake.table("questions").count() == 1
    with pytest.raises(KeyboardInterrupt):
        fail(2, KeyboardInterrupt())
    record = lake.runs()[0]
    assert (record.status, record.error) == ("failed", "interrupted")
    assert record.counts["rows_out"] == 2


def test_the_newer_of_two_processes_with_one_run_holds_it(lake: Lake) -> None:

    def work_while_another_takes_over() -> None:
        with open_count(lake) as older:
            older.append("questions", [make_row(1)])
            older.flush()
            older.append("questions", [make_row(2)])
            with open_count(Lake(lake.uri)) as newer:
                assert newer.run_id == older.run_id
                newer.append("questions", [make_row(1), make_row(2), make_row(3)])
            assert newer.summary.rows_out == 3

    with pytest.raises(FenceLostError, match="resumed by a newer process"):
        work_while_another_takes_over()
    assert lake.table("questions").count() == 3
    assert lake.runs()[0].status == "finished"
    assert [status for status, _ in list_statuses(lake)] == ["started", "resumed", "finished"]


RACE = """
import sys, time
from pathlib import Path
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.stages.runtime.contract import StageConfig
from rlt_data.stages.runtime.declaration import StageDeclaration
from rlt_data.stages.runtime.run import Preparation
from rlt_data.stages.runtime.starting import start_run
from rlt_data.stages.runtime.stage import Stage

go = Path(sys.argv[2])
Path(f"{go}.{sys.argv[3]}").touch()
while not go.exists():
    time.sleep(0.001)

def work(run):
    for number in range(20):
        run.count(rows_in=1)
        run.append("questions", [{"question_id": hash_content(number), "question": "?", "solution": "!",
                                  "solution_rendered": False}])
        time.sleep(0.01)

race = StageDeclaration("race", "", writes=("questions",))
Stage(lambda lake, config: Preparation(work), StageConfig, race)(Lake(sys.argv[1]), StageConfig())
"""


def test_processes_that_run_the_same_at_once_do_no_harm(lake: Lake, tmp_path: Path) -> None:
    """The newest process finishes; the others end with the reason; the table is that of one run."""
    go = tmp_path / "go"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, lake.uri, str(go), str(number)],
            stderr=subprocess.PIPE,
            text=True,
            env={"RLT_DATA_COMMIT_SECONDS": "0.02"},
        )
        for number in range(3)
    ]
    while not all(Path(f"{go}.{number}").exists() for number in range(3)):
        time.sleep(0.01)
        assert all(process.poll() is None for process in processes)
    go.touch()
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert any(process.returncode == 0 for process in processes), errors
    for process, error in zip(processes, errors, strict=True):
        assert process.returncode == 0 or "resumed by a newer process" in error
    keys = lake.table("questions").scan().collect().get_column("question_id")
    assert len(keys) == keys.n_unique() == 20
    assert len(lake.runs()) == 1
    assert lake.runs()[0].status == "finished"
    assert lake.runs()[0].counts["rows_out"] == lake.runs()[0].counts["rows_in"] == 20


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(1, 10),
    kills=st.lists(st.tuples(st.integers(0, 10), st.sets(st.integers(0, 10))), max_size=4),
)
def test_killed_at_any_row_with_any_commits_before_the_whole_is_the_same(
    size: int, kills: list[tuple[int, set[int]]]
) -> None:
    """Each session commits after some of its rows and is dropped at another; a last one goes through."""
    dropped: list[StageRun] = []
    with tempfile.TemporaryDirectory() as folder:

        def work(kill_at: int | None, commits: set[int]) -> StageSummary | None:
            run = open_run(Lake(folder), "law", CountConfig(size=size), outputs=("questions",), repeats=False)
            done = set(run.written("questions").collect().get_column("question_id"))
            left = [number for number in range(size) if hash_content(number) not in done]
            for index, number in enumerate(left):
                if index == kill_at:
                    dropped.append(run)  # Neither finished nor closed while the property is tested.
                    return None
                run.count(rows_in=1, tokens=number)
                run.append("questions", [make_row(number)])
                if index in commits:
                    run.flush()
            run.__exit__(None, None, None)
            return run.summary

        for kill_at, commits in kills:
            if work(kill_at, commits) is not None:
                break  # It had nothing left at which it could be killed.
        else:
            assert work(None, set()) is not None
        lake = Lake(folder)
        stored = lake.table("questions").scan().collect()
        assert sorted(stored.get_column("question_id")) == sorted(map(hash_content, range(size)))
        counts = lake.runs()[0].counts
        assert len(lake.runs()) == 1
        assert lake.runs()[0].status == "finished"
        assert counts["rows_in"] == counts["rows_out"] == counts["tables"]["questions"] == size
        assert counts["tokens"] == sum(range(size))


def test_the_fingerprint_covers_json_alone() -> None:
    text = json.dumps(CountConfig().list_identity())
    assert json.loads(text) == {"size": 6}
