"""Runs that have not ended: whether they are still worked on, what is left of them, and what they pin."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command_line import QuickProgram
from opened_run import open_run
from small_lake import MadeConfig, append_made, make_question, make_trace

from rlt_data.errors import LakeError
from rlt_data.lake import Lake, RunRecord
from rlt_data.lake.sessions import describe_session, find_state, is_alive

WORKING = """
import sys
from opened_run import open_run
from small_lake import MadeConfig, make_trace
from rlt_data.lake import Lake

run = open_run(Lake(sys.argv[1]), "generate", MadeConfig(), inputs=("questions",), outputs=("traces",))
run.append("traces", [make_trace(0, sample) for sample in range(3)])
run.flush()
print("working", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(tmp_path / "lake")
    append_made(made, "ingest", "questions", [make_question(0)])
    return made


def start_working(lake: Lake) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKING, lake.uri],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "working\n"
    return process


def find_generate(lake: Lake) -> RunRecord:
    (found,) = (run for run in lake.runs() if run.stage == "generate")
    return found


def interrupt(lake: Lake, cause: BaseException) -> None:
    run = open_run(lake, "generate", MadeConfig(), inputs=("questions",), outputs=("traces",))
    with suppress(type(cause)), run:
        run.append("traces", [make_trace(0, 0)])
        raise cause


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked up in /proc")
def test_a_killed_run_is_shown_as_interrupted_and_a_live_one_as_running(lake: Lake, tmp_path: Path) -> None:
    program = QuickProgram(tmp_path)
    process = start_working(lake)
    assert find_state(find_generate(lake)) == "running"
    (shown,) = json.loads(program.succeed("log", "--lake", "lake", "--stage", "generate", "--json"))
    assert (shown["state"], shown["rows_so_far"]) == ("running", {"traces": 3})
    process.kill()
    # Also before its parent has noticed that it has ended.
    while process.poll() is None and find_state(find_generate(lake)) != "interrupted":
        pass
    process.communicate()
    assert find_state(find_generate(lake)) == "interrupted"
    answer = program.succeed("log", "--lake", "lake")
    assert "interrupted" in answer
    assert f"traces@{lake.table('traces').version()}" in answer
    assert "@-1" not in answer
    assert "run their commands again to resume them" in answer
    answer = program.succeed("log", find_generate(lake).run_id, "--lake", "lake")
    assert "state: interrupted" in answer
    assert "traces: 3" in answer


def test_elsewhere_it_is_not_known_whether_a_process_still_runs() -> None:
    session = describe_session()
    if session["kernel"] is not None:
        assert is_alive(session) is True
        assert is_alive({**session, "process_started": 1}) is False
        assert is_alive({**session, "pid": 2**30}) is False
    assert is_alive({**session, "kernel": "another machine"}) is None
    assert is_alive({}) is None


def test_states_of_runs_of_version_0_1() -> None:
    lake = Lake(Path(__file__).parents[1] / "compatibility" / "lake_0_1" / "lake", create=False)
    states = {(run.status, find_state(run)) for run in lake.runs()}
    assert states >= {("finished", "finished"), ("started", "interrupted or running")}


@pytest.mark.parametrize(
    ("cause", "state"), [(KeyboardInterrupt(), "interrupted"), (ValueError("broken"), "failed")]
)
def test_a_run_that_ended_by_itself_says_how(lake: Lake, cause: BaseException, state: str) -> None:
    interrupt(lake, cause)
    assert find_state(find_generate(lake)) == state


def test_an_unfinished_run_pins_its_versions_for_a_time(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = lake.table("questions").version()
    interrupt(lake, ValueError("broken"))
    append_made(lake, "ingest", "questions", [make_question(1)], label="second")
    lake.compact()
    assert lake.vacuum(["questions"], retention_hours=0)[0].kept_versions == (pinned,)
    assert lake.vacuum(["questions"], retention_hours=0, pinned_hours=0)[0].kept_versions == ()
    assert lake.vacuum(["questions"], retention_hours=0, drop_pinned=True)[0].kept_versions == ()

    class Later(datetime):
        @classmethod
        def now(cls, zone: object = None) -> datetime:
            return datetime.now(UTC) + timedelta(hours=721)

    monkeypatch.setattr("rlt_data.lake.upkeep.datetime", Later)
    assert lake.vacuum(["questions"], retention_hours=0)[0].kept_versions == ()


def test_a_run_that_ended_with_the_clock_ahead_pins_nothing_for_zero_hours(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, zone: object = None) -> datetime:
            return datetime.now(UTC) + timedelta(days=3650)

    with monkeypatch.context() as ahead:
        for module in ("rlt_data.lake.runs", "rlt_data.lake.sessions", "rlt_data.stages.runtime.run"):
            ahead.setattr(f"{module}.datetime", Ahead)
        interrupt(lake, ValueError("broken"))
    pinned = lake.table("questions").version()
    assert lake.vacuum(["questions"], retention_hours=0)[0].kept_versions == (pinned,)
    assert lake.vacuum(["questions"], retention_hours=0, pinned_hours=0)[0].kept_versions == ()


def test_a_run_whose_pinned_version_is_gone_resumes_from_equal_rows(lake: Lake) -> None:
    append_made(lake, "ingest", "questions", [make_question(1)], label="second")
    pinned = lake.table("questions").version()
    interrupt(lake, ValueError("broken"))
    lake.compact()
    lake.vacuum(retention_hours=0, dry_run=False, drop_pinned=True)
    with pytest.raises(LakeError, match="was vacuumed"):
        lake.table("questions").scan(pinned)
    with open_run(lake, "generate", MadeConfig(), inputs=("questions",), outputs=("traces",)) as run:
        assert run.resumed
        assert run.read("questions").collect().height == 2
    newest = lake.table("questions").version()
    assert run.summary.notes == [
        f"questions was read at version {newest}: version {pinned}, which this run had pinned, is gone"
    ]
    (state,) = find_generate(lake).inputs
    assert state.version == newest
