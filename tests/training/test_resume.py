"""Resume: killed at any step, a training ends with the result of an uninterrupted one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from faults.harness import draw_delays, make_command, read_rows, run_killed, watch_table
from polars.testing import assert_frame_equal

from rlt_data.lake import Lake
from rlt_data.stages.rank import RankConfig, rank
from rlt_data.stages.runtime.contract import StageConfig, StageSummary
from rlt_data.stages.substitute import SubstituteConfig, substitute
from rlt_data.training.rl.config import GrpoConfig, StudentGrpoConfig
from rlt_data.training.rl.stage import train_grpo
from rlt_data.training.sft.config import SftConfig
from rlt_data.training.sft.stage import train_sft

pytest.importorskip("trl")

# A kill at any moment: also while a checkpoint is written, since every step writes one.
STAGE = """
import importlib, sys
from rlt_data.lake import Lake
module, function, config_module, config, uri, text = sys.argv[1:]
train = getattr(importlib.import_module(module), function)
train(Lake(uri), getattr(importlib.import_module(config_module), config).model_validate_json(text))
"""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "RLT_DATA_COMMIT_SECONDS": "0"}
STEPS = 8
# Metrics of clocks differ from run to run.
CLOCK = ["step_time"]


@dataclass(frozen=True)
class Pair:
    """What an uninterrupted training left, and what one left that was killed on the way."""

    whole: Lake
    killed: Lake
    models: tuple[str, str]
    kills: int


def train_twice(
    folder: Path,
    make_lake: Callable[[Path], Lake],
    train: Callable[..., StageSummary],
    config: StageConfig,
    *,
    waits: tuple[tuple[str, int], ...],
    seed: int,
) -> Pair:
    """Train once here, and once as a command that is killed after so many commits of a table each time."""
    whole, killed = make_lake(folder / "whole"), make_lake(folder / "killed")
    here = train(whole, config.model_copy(update={"output": str(folder / "here")}))
    there = config.model_copy(update={"output": str(folder / "there")})
    command = make_command(
        STAGE, train.__module__, train.__name__, type(config).__module__, type(config).__name__,
        str(folder / "killed"), there.model_dump_json(),
    )  # fmt: skip
    delays = draw_delays(seed, len(waits), 0.4)
    watch = watch_in_turn([watch_table(killed, table, (commits,)) for table, commits in waits])
    done = run_killed(command, delays, at_work=watch, env=ENVIRONMENT, timeout=250)
    again = train(killed, there)
    assert again.status == "already finished"
    assert again.run_id == here.run_id
    assert again.model_dump(include={"tables", "rows_out", "truncated", "tokens"}) == here.model_dump(
        include={"tables", "rows_out", "truncated", "tokens"}
    )
    return Pair(whole, killed, (str(here.extra["model"]), str(again.extra["model"])), done.kills)


def watch_in_turn(watches: Sequence[Callable[[], bool]]) -> Callable[[], bool]:
    """Make an `at_work` that waits for the first of `watches` at the first start, and so on."""
    waiting = list(watches)

    def has_come() -> bool:
        if not waiting[0]():
            return False
        waiting.pop(0)
        return True

    return has_come


def read_weights(model: str) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(Path(model) / "model.safetensors")


def assert_same_weights(one: str, other: str) -> None:
    left, right = read_weights(one), read_weights(other)
    assert left.keys() == right.keys()
    for name in left:
        assert (left[name] == right[name]).all(), name


def read_metrics(lake: Lake) -> pl.DataFrame:
    return read_rows(lake, "metrics").filter(~pl.col("name").is_in(CLOCK))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_grpo_resumes_where_it_was_killed(
    models: dict[str, str], make_lake: Callable[[Path], Lake], tmp_path: Path
) -> None:
    """Weights, optimizer, order of questions, moving reference and rows: as in an uninterrupted training."""
    config = GrpoConfig(
        model=models["teacher"],
        students=(models["student"],),
        output="",
        steps=STEPS,
        questions_per_step=2,
        group_size=4,
        micro_batch_size=4,
        max_tokens=8,
        max_prompt_tokens=200,
        save_every=2,
        trainer={
            "use_cpu": True,
            "gradient_checkpointing": False,
            "learning_rate": 1e-3,
            "beta": 0.04,
            "sync_ref_model": True,
            "ref_model_mixup_alpha": 0.9,
            "ref_model_sync_steps": 3,
        },
    )
    pair = train_twice(
        tmp_path, make_lake, train_grpo, config, waits=(("rollouts", 3), ("rollouts", 3)), seed=1
    )
    assert pair.kills >= 1
    assert_frame_equal(read_rows(pair.whole, "rollouts"), read_rows(pair.killed, "rollouts"))
    assert_frame_equal(read_metrics(pair.whole), read_metrics(pair.killed))
    assert_same_weights(*pair.models)
    # Different from what it would be without the mixing, so that the reference took part.
    assert read_metrics(pair.whole).filter(name="kl")["value"].abs().max() > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_students_grpo_resumes_where_it_was_killed(
    models: dict[str, str], make_lake: Callable[[Path], Lake], tmp_path: Path
) -> None:
    config = StudentGrpoConfig(
        model=models["student"],
        output="",
        steps=STEPS,
        questions_per_step=2,
        group_size=4,
        micro_batch_size=4,
        max_tokens=8,
        max_prompt_tokens=200,
        save_every=2,
        # Untrained models are never right: the penalty for the format gives their groups spread.
        reward={"grader": "integer", "format_penalty": -0.5},
        trainer={
            "use_cpu": True,
            "gradient_checkpointing": False,
            "learning_rate": 1e-3,
            "beta": 0.04,
        },
    )
    pair = train_twice(tmp_path, make_lake, train_grpo, config, waits=(("rollouts", 3),) * 2, seed=3)
    assert pair.kills >= 1
    assert_frame_equal(read_rows(pair.whole, "rollouts"), read_rows(pair.killed, "rollouts"))
    assert_frame_equal(read_metrics(pair.whole), read_metrics(pair.killed))
    assert_same_weights(*pair.models)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sft_resumes_where_it_was_killed(
    models: dict[str, str], make_lake: Callable[[Path], Lake], tmp_path: Path
) -> None:
    config = SftConfig(
        model=models["teacher"],
        output="",
        trainer={
            "use_cpu": True,
            "gradient_checkpointing": False,
            "learning_rate": 1e-3,
            "num_train_epochs": 4,
            "per_device_train_batch_size": 6,
            "save_steps": 2,
        },
    )
    pair = train_twice(tmp_path, make_lake, train_sft, config, waits=(("metrics", 7),), seed=2)
    assert pair.kills >= 1
    assert_frame_equal(read_metrics(pair.whole), read_metrics(pair.killed))
    assert_same_weights(*pair.models)
    assert read_metrics(pair.whole)["step"].max() == 15


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [3, 4])
def test_sft_of_a_student_resumes_where_it_was_killed(
    models: dict[str, str], make_lake: Callable[[Path], Lake], tmp_path: Path, seed: int
) -> None:
    """Killed once its examples are selected, and in the second epoch and the fourth, with partial steps."""

    def make_sets(path: Path) -> Lake:
        lake = make_lake(path)
        rank(lake, RankConfig(policy="random(1)"))
        substitute(lake, SubstituteConfig(student=models["student"], ranked_by="none"))
        return lake

    lengths = make_sets(tmp_path / "measured").table("distillation").scan().collect()["total_tokens"].sort()
    packed = seed == 4
    config = SftConfig(
        role="student",
        model=models["student"],
        output="",
        max_tokens=int(lengths[-3]) - 1,
        packing=packed,
        lora={"r": 4, "target_modules": "all-linear", "lora_dropout": 0.1} if packed else None,
        seed=seed,
        trainer={
            "use_cpu": True,
            "gradient_checkpointing": False,
            "learning_rate": 1e-3,
            "num_train_epochs": 5,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "save_steps": 2,
        },
    )
    waits = (("rejects", 1), ("metrics", 7), ("metrics", 6))
    pair = train_twice(tmp_path, make_sets, train_sft, config, waits=waits, seed=seed)
    assert pair.kills >= 1
    assert_frame_equal(read_metrics(pair.whole), read_metrics(pair.killed))
    assert_frame_equal(read_rows(pair.whole, "rejects"), read_rows(pair.killed, "rejects"))
    assert read_rows(pair.whole, "rejects").height >= 3
    assert_same_weights(*pair.models)
    assert read_metrics(pair.whole)["step"].max() > 13
