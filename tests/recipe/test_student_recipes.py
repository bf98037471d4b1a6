"""The built-in recipes for students: their numbers, their dry runs, and one from an empty lake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Program

from rlt_data.lake import Lake
from rlt_data.recipe.training import load_training, run_training_recipe
from rlt_data.recipe.training_plan import plan_training
from rlt_data.recipe.training_schema import StudentRecipe

PAPER = ("student-7b-17k", "student-7b-1k", "student-32b-17k", "student-32b-1k")


def load(name: str, *overrides: str) -> Any:
    return load_training([name], overrides, role="student")


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_numbers_are_in_its_recipes(name: str) -> None:
    recipe = load(name).recipe
    assert isinstance(recipe, StudentRecipe)
    sft = recipe.make_sft("base")
    wanted = {
        "num_train_epochs": 3,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 12,
    }
    assert wanted.items() <= sft.trainer.items()
    assert (sft.max_tokens, sft.packing, sft.lora) == (16384, False, None)
    assert sft.limit == (None if name.endswith("17k") else 1000)
    assert recipe.student == f"qwen{name.split('-')[1]}"


@pytest.mark.parametrize("name", [*PAPER, "student-lora"])
def test_a_dry_run_of_a_recipe_measures_it_offline(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    pytest.importorskip("trl")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    lora = name == "student-lora"
    plan = plan_training(load(name), Lake(tmp_path / "lake"), processes=1 if lora else 8)
    lines = plan["sections"]["sft"]
    assert lines["texts"] == "made by this recipe"
    assert lines["texts per step"].startswith("96, in ")
    assert lines["longest text"] == "16,384 tokens"
    if lora:
        assert lines["memory: base weights"] == "14.19 GiB"
    else:
        assert lines["memory: trained weights"] == ("14.19 GiB" if "7b" in name else "61.09 GiB")
        assert "ZeRO-3" in lines["memory in all, sharded"]
    # The model is not here, and nothing else is wrong.
    (refusal,) = plan["refused"]
    assert "Qwen/Qwen2.5-" in refusal


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The CPU recipe with smaller numbers."""
    path = tmp_path / "small.toml"
    path.write_text(
        """
lake = "lake"
output = "out"
student = "fresh"

[fresh]
examples = 48
batch_size = 12
epochs = 1
shape = { hidden_size = 32, heads = 2, key_value_heads = 2, feed_forward = 48, context = 512 }

[ingest]
source = "arithmetic:chain_sum"
size = 24

[score]
students = ["fresh"]
teacher = "fresh"

[rank]
policy = "top-quantile(0.5, corpus)"

[substitute]
student = "fresh"

[sft]
packing = true

[sft.trainer]
max_steps = 2
per_device_train_batch_size = 2
gradient_checkpointing = false
use_cpu = true
"""
    )
    return path


@pytest.mark.timeout(300)
def test_a_recipe_learns_from_the_examples_that_it_made(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where another set was made later: the same command finds its own training finished."""
    pytest.importorskip("trl")
    from rlt_data.stages.rank import RankConfig, rank
    from rlt_data.stages.substitute import SubstituteConfig, substitute

    monkeypatch.chdir(tmp_path)
    lake = Lake(tmp_path / "lake")
    planned = plan_training(load(str(small)), lake)
    assert planned["refused"] == []
    assert planned["sections"]["sft"]["texts"] == "made by this recipe"
    made = run_training_recipe(load(str(small)), lake)
    assert [summary.stage for summary in made] == ["ingest", "score", "rank", "substitute", "sft"]
    assert made[-1].extra["examples"] == 12
    planned = plan_training(load(str(small)), lake)["sections"]["sft"]
    assert planned["texts"] == "12 in the lake now"
    assert planned["tokens"].startswith(f"{made[-1].extra['tokens_per_epoch']:,} an epoch, the longest text ")
    assert planned["packed rows"].startswith("at least ")
    assert planned["packed rows per step"] == "2, in 1 process"
    rank(lake, RankConfig(policy="random(1)"))
    substitute(lake, SubstituteConfig(student=str(tmp_path / "out" / "fresh"), ranked_by="fresh"))
    again = run_training_recipe(load(str(small)), lake)
    assert [summary.status for summary in again] == ["already finished"] * 5
    assert again[-1].run_id == made[-1].run_id


def test_a_dry_run_counts_what_is_over_the_limit(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl")
    monkeypatch.chdir(tmp_path)
    lake = Lake(tmp_path / "lake")
    run_training_recipe(load(str(small)), lake)
    lengths = sorted(lake.table("distillation").scan().collect()["total_tokens"].to_list())
    limit = lengths[5]
    over = sum(length > limit for length in lengths)
    plan = plan_training(load(str(small), f"sft.max_tokens={limit}", "sft.over_long=next-best"), lake)
    assert plan["sections"]["sft"]["texts over the limit"] == (
        f"{over}: replaced by the next-best trace that fits, or dropped"
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_cpu_recipe_trains_a_student_from_an_empty_lake(program: Program, tmp_path: Path) -> None:
    """With less pretraining than by default, so that it takes a minute; everything else is the recipe."""
    pytest.importorskip("trl")
    options = ("--set", "fresh.examples=480", "--set", "sft.trainer.num_train_epochs=1", "--json")
    made = json.loads(program.succeed("train-student", "student-cpu", *options))
    assert [summary["stage"] for summary in made][:5] == ["ingest", "score", "rank", "substitute", "sft"]
    assert made[4]["extra"]["examples"] == 600
    assert (tmp_path / "student-cpu" / "student").is_dir()
    losses = program.succeed(
        "sql", "select step, value from metrics where name = 'loss' and phase = 'sft' order by step",
        "-f", "csv", "--lake", "student-cpu/lake",
    )  # fmt: skip
    values = [float(line.split(",")[1]) for line in losses.splitlines()[1:]]
    assert len(values) == 25
    assert sum(values[-5:]) < sum(values[:5])
