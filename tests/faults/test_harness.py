"""The kill harness itself, on a toy stage: what is killed and run again equals what ran through."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from faults.harness import assert_equal_lakes, draw_delays, make_command, run_killed, watch_table

from rlt_data.lake import Lake

TOY = """
import sys, time
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.stages.runtime.contract import RunField, StageConfig
from rlt_data.stages.runtime.declaration import StageDeclaration
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.starting import start_run

class ToyConfig(StageConfig):
    size: RunField[int] = 60

def double(lake, config):
    declaration = StageDeclaration("double", "", writes=("questions",), repeats=False)
    run = start_run(lake, declaration, config, Preparation(lambda run: None))
    if not isinstance(run, StageRun):
        return run
    with run:
        done = set(run.written("questions").collect().get_column("question_id"))
        done |= set(run.written("rejects").collect().get_column("key"))
        left = [n for n in range(config.size) if hash_content(n) not in done]
        for number in left:
            key = hash_content(number)
            run.count(rows_in=1, tokens=number, sevens=number % 7 == 0)
            time.sleep(0.01)
            if number % 5 == 0:
                run.reject(source="toy", reason="multiple_of_five", detail="is one", key=key)
            else:
                row = {"question_id": key, "question": str(number), "solution": str(2 * number),
                       "solution_rendered": True}
                run.append("questions", [row])
    return run.summary

print(double(Lake(sys.argv[1]), ToyConfig()).model_dump_json(exclude={"seconds", "tokens_per_second"}))
"""


def test_a_killed_toy_stage_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    env = {"RLT_DATA_COMMIT_SECONDS": "0.05"}
    whole, killed = Lake(tmp_path / "whole"), Lake(tmp_path / "killed")
    straight = run_killed(make_command(TOY, whole.uri), [], env=env)
    result = run_killed(
        make_command(TOY, killed.uri),
        draw_delays(seed=5, kills=3, longest=0.3),
        at_work=watch_table(killed, "runs"),
        env=env,
    )
    assert result.kills >= 1
    assert_equal_lakes(whole, killed)
    assert whole.table("questions").count() == 48
    # The summary is that of the whole run, however often it was interrupted.
    assert result.stdout.replace("already finished", "finished") == straight.stdout
    run = killed.runs()[0]
    assert [r.status for r in killed.runs()] == ["finished"]
    assert run.counts["extra"] == {"sevens": 9, "rejected_multiple_of_five": 12}
    assert run.counts["tokens"] == sum(range(60))
    assert 1 < run.sequence <= result.kills + 1
    again = run_killed(make_command(TOY, killed.uri), [], env=env)
    assert '"already finished"' in again.stdout
    assert_equal_lakes(whole, killed)


def test_a_failing_command_prints_its_error(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="out of cheese"):
        run_killed(make_command("raise SystemExit('out of cheese')"), [])


def test_nothing_that_the_command_started_survives_the_kill(tmp_path: Path) -> None:
    script = f"""
import subprocess, sys, time
from pathlib import Path
if Path({str(tmp_path / "again")!r}).exists():
    raise SystemExit
Path({str(tmp_path / "again")!r}).touch()
subprocess.Popen([sys.executable, "-c", "import time, pathlib; time.sleep(1.5); "
                  "pathlib.Path({str(tmp_path / "survived")!r}).touch()"])
time.sleep(60)
"""
    result = run_killed(make_command(script), [0.3], at_work=(tmp_path / "again").exists)
    assert result.kills == 1
    time.sleep(1.6)
    assert not (tmp_path / "survived").exists()
