"""Every registered stage, killed at random moments and run again, ends with the rows of an uninterrupted run.

One lake goes through the whole chain in this process. Before each stage it is copied, and the same stage
runs on the copy as a command that is killed and started again. Keys, texts and run ids must be equal, and
the summaries; log-probabilities may differ by rounding, since a resumed run cuts its batches differently.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from faults.harness import assert_equal_lakes, draw_delays, make_command, run_killed, watch_table
from faults.kill_case import QUESTIONS, load_case

from rlt_data.lake import Lake
from rlt_data.stages.registry import STAGES
from rlt_data.stages.runtime.contract import StageSummary
from rlt_data.stages.runtime.declaration import StageDeclaration
from rlt_data.stages.runtime.stage import load_stage

ROUNDING = 2e-5

PROGRAM = """
import sys
from rlt_data.lake import Lake
from rlt_data.stages.registry import find_stage
from rlt_data.stages.runtime.stage import load_stage
name, uri, config = sys.argv[1:]
stage = load_stage(find_stage(name))
summary = stage(Lake(uri), stage.config.model_validate_json(config))
print(summary.model_dump_json(exclude={"seconds", "tokens_per_second"}))
"""


def write_source(path: Path) -> None:
    """Write problems, some of them with a trace, some twice, some of them unusable."""
    lines = []
    for number in range(QUESTIONS):
        row: dict[str, object] = {"question": f"{number} + 2 = ?", "solution": f"{number} + 2 = {number + 2}"}
        lines.append(json.dumps(row))
        if number % 4 == 0:
            lines.append(json.dumps(row))
        if number % 5 == 0:
            lines += [json.dumps({"question": "", "solution": "x"}), "{broken", json.dumps({"question": "?"})]
    # Rows are taken in batches: enough of them that several batches lie between the problems.
    lines += [json.dumps({"question": " ", "solution": str(number)}) for number in range(1200)]
    lines += [json.dumps({"question": f"{n} - 1 = ?", "solution": f"{n - 1}"}) for n in range(900)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kill")


@pytest.fixture(scope="module")
def chain(folder: Path) -> Lake:
    pytest.importorskip("torch")
    from tiny_models import save_tiny_model

    write_source(folder / "problems.jsonl")
    save_tiny_model(folder / "teacher", seed=1, max_position_embeddings=8192)
    save_tiny_model(folder / "student", seed=2, max_position_embeddings=8192)
    return Lake(folder / "whole")


def run_here(declaration: StageDeclaration, folder: Path, lake: Lake) -> StageSummary:
    stage = load_stage(declaration)
    return stage(lake, stage.config.model_validate(load_case(declaration.section, folder).config))


@pytest.mark.slow
@pytest.mark.parametrize("declaration", STAGES, ids=lambda declaration: declaration.name)
def test_a_killed_stage_ends_with_the_rows_of_an_uninterrupted_one(
    declaration: StageDeclaration, chain: Lake, folder: Path
) -> None:
    case = load_case(declaration.section, folder)
    for earlier in STAGES[: STAGES.index(declaration)]:
        run_here(
            earlier, folder, chain
        )  # Finished already, unless this test runs apart from those before it.
    killed = Lake(folder / f"killed-{declaration.name}")
    if Path(chain.uri).exists():
        shutil.copytree(chain.uri, killed.uri)
    expected = run_here(declaration, folder, chain)
    exported = folder / "export"
    if exported.exists():
        exported.rename(folder / "expected")
    # No later than the work takes on this machine: else a fast one is done before it is killed.
    longest = min(case.longest, expected.seconds)
    result = run_killed(
        make_command(PROGRAM, declaration.name, killed.uri, json.dumps(case.config)),
        draw_delays(seed=len(declaration.name), kills=len(case.commits), longest=longest),
        at_work=watch_table(killed, case.table, case.commits),
        env={"RLT_DATA_COMMIT_SECONDS": str(case.commit_seconds)},
    )
    assert result.kills >= 1, "no kill fell into the stage's work"
    assert_equal_lakes(chain, killed, tolerance=ROUNDING)
    summary = StageSummary.model_validate_json(result.stdout)
    # The last start may find that the one before was killed after its end.
    varying = {"status", "seconds", "tokens_per_second", "notes", "extra"}
    assert summary.model_dump(exclude=varying) == expected.model_dump(exclude=varying)
    assert [run.status for run in killed.runs()] == ["finished"] * len(chain.runs())
    if exported.exists():
        assert exported.read_bytes() == (folder / "expected").read_bytes()
