"""Every stage, killed with SIGKILL at random moments and run again, leaves what an uninterrupted one leaves.

One lake goes through the whole chain in this process. Before each stage it is copied, and the same stage
runs on the copy as a command that is killed and started again. Keys, texts and run ids must be equal, and
the summaries; log-probabilities may differ by rounding, since a resumed run cuts its batches differently.
"""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from faults.harness import assert_equal_lakes, draw_delays, make_command, run_killed, watch_table

from rlt_data.lake import Lake
from rlt_data.stages.runtime.run import StageConfig, StageSummary

STAGES = ("ingest", "generate", "score", "reward", "rank", "substitute", "export")
QUESTIONS = 14
ROUNDING = 2e-5

STAGE = """
import importlib, sys
from rlt_data.lake import Lake
module, name, uri, config = sys.argv[1:]
stage = importlib.import_module(f"rlt_data.stages.{module}")
config = getattr(stage, f"{name.capitalize()}Config").model_validate_json(config)
print(getattr(stage, name)(Lake(uri), config).model_dump_json(exclude={"seconds", "tokens_per_second"}))
"""


@dataclass(frozen=True)
class Case:
    """One stage of the chain, and the moments at which it is killed: after so many commits of a table."""

    stage: str
    table: str
    commits: tuple[int, ...]
    longest: float
    config: dict[str, object]


def write_source(path: Path) -> None:
    """Write problems, some of them with a trace, some twice, some of no use."""
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


def list_cases(folder: Path) -> dict[str, Case]:
    teacher, student = str(folder / "teacher"), str(folder / "student")
    cases = (
        Case("ingest", "rejects", (1, 2, 4), 0.05, {"source": str(folder / "problems.jsonl")}),
        Case(
            "generate",
            "traces",
            (3, 9),
            0.2,
            {
                "teacher": [teacher],
                "samples": 2,
                "limit": QUESTIONS,
                "format": "r1",
                "engine": "transformers",
                "max_tokens": 12,
                "max_batch_rows": 4,
                "allow_truncated": True,
            },
        ),
        Case(
            "score",
            "scores",
            (1, 2),
            0.3,
            {"students": [student], "format": "r1", "batch_tokens": 2048, "pack_tokens": 1024},
        ),
        Case("reward", "runs", (1, 1), 0.3, {"reward": {"estimator": "k3", "alpha": 0.1}}),
        Case("rank", "runs", (1, 1), 0.4, {"policy": "best-of-n(1)"}),
        Case("substitute", "distillation", (2,), 0.2, {"student": student, "format": "r1", "batch_size": 2}),
        Case("export", "runs", (1, 1), 0.3, {"path": str(folder / "export"), "form": "jsonl"}),
    )
    return {case.stage: case for case in cases}


def run_here(case: Case, lake: Lake) -> StageSummary:
    module = importlib.import_module(f"rlt_data.stages.{case.stage}")
    config = getattr(module, f"{case.stage.capitalize()}Config").model_validate(case.config)
    assert isinstance(config, StageConfig)
    summary = getattr(module, case.stage)(lake, config)
    assert isinstance(summary, StageSummary)
    return summary


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_stage_leaves_what_an_uninterrupted_one_leaves(
    stage: str, chain: Lake, folder: Path
) -> None:
    cases = list_cases(folder)
    case = cases[stage]
    for earlier in STAGES[: STAGES.index(stage)]:
        run_here(cases[earlier], chain)  # Finished already, unless this test runs apart from those before it.
    killed = Lake(folder / f"killed-{stage}")
    if Path(chain.uri).exists():
        shutil.copytree(chain.uri, killed.uri)
    expected = run_here(case, chain)
    exported = folder / "export"
    if exported.exists():
        exported.rename(folder / "expected")
    # No later than the work takes on this machine: else a fast one is done before it is killed.
    longest = min(case.longest, expected.seconds)
    result = run_killed(
        make_command(STAGE, stage, stage, killed.uri, json.dumps(case.config)),
        draw_delays(seed=len(stage), kills=len(case.commits), longest=longest),
        at_work=watch_table(killed, case.table, case.commits),
        env={"RLT_DATA_COMMIT_SECONDS": "0.03" if stage == "ingest" else "0"},
    )
    assert result.kills >= 1, "no kill fell into the stage's work"
    assert_equal_lakes(chain, killed, tolerance=ROUNDING)
    summary = StageSummary.model_validate_json(result.stdout)
    # The last start may find that the one before was killed after its end.
    told = {"status", "seconds", "tokens_per_second", "notes", "extra"}
    assert summary.model_dump(exclude=told) == expected.model_dump(exclude=told)
    assert [run.status for run in killed.runs()] == ["finished"] * len(chain.runs())
    if stage == "export":
        assert exported.read_bytes() == (folder / "expected").read_bytes()
