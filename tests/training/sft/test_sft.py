"""Supervised fine-tuning: what is learned from, what is rejected, and the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlt_data.formats import load_format
from rlt_data.lake import Lake
from rlt_data.models import load_model, resolve_model
from rlt_data.training.sft.config import SftConfig
from rlt_data.training.sft.examples import Explained, build_teacher_examples
from rlt_data.training.sft.forecast import count_steps
from rlt_data.training.sft.roles import TeacherRole
from rlt_data.training.sft.stage import train_sft

pytest.importorskip("trl")

TRAINER = {"use_cpu": True, "gradient_checkpointing": False, "per_device_train_batch_size": 8}


def make_config(models: dict[str, str], output: Path, **changes: Any) -> SftConfig:
    trainer = {**TRAINER, "max_steps": 2, "learning_rate": 1e-2, **changes.pop("trainer", {})}
    return SftConfig(model=models["teacher"], output=str(output), trainer=trainer, **changes)


def test_an_adapter_is_merged_into_a_whole_model(models: dict[str, str], lake: Lake, tmp_path: Path) -> None:
    import torch

    config = make_config(models, tmp_path / "out", lora={"r": 4, "target_modules": "all-linear"})
    summary = train_sft(lake, config)
    identity = resolve_model(str(summary.extra["model"]), role="teacher")
    assert identity.base is None, "a model of its own, on which GRPO may train another adapter"
    old, new = (
        dict(load_model(one, dtype="float32", device="cpu").named_parameters())
        for one in (resolve_model(models["teacher"], role="teacher"), identity)
    )
    assert old.keys() == new.keys()
    changed = {name for name in old if not torch.equal(old[name], new[name])}
    assert any("q_proj" in name for name in changed)
    assert not any("embed" in name or "norm" in name for name in changed)
    checkpoint = next((tmp_path / "out").glob("sft-*/checkpoint-2"))
    assert (checkpoint / "adapter_model.safetensors").is_file()


def test_texts_over_the_limit_are_rejects(
    models: dict[str, str], lake: Lake, tokenizer: Any, tmp_path: Path
) -> None:
    questions = lake.table("questions").scan().select("question_id", "question", "solution")
    rows = lake.table("traces").scan().join(questions, on="question_id")
    explained = [
        Explained(*row) for row in rows.select("question", "solution", "think").collect().iter_rows()
    ]
    examples = build_teacher_examples(load_format("stratos"), tokenizer, explained)
    lengths = sorted(len(example.token_ids) for example in examples)
    limit = lengths[12]
    summary = train_sft(lake, make_config(models, tmp_path / "out", max_tokens=limit))
    assert summary.extra["examples"] == sum(length <= limit for length in lengths) < 24
    rejects = lake.table("rejects").scan().collect()
    assert rejects.height == 24 - summary.extra["examples"]
    assert set(rejects["reason"]) == {"over_length"}


def test_nothing_is_learned_from_truncated_and_blank_explanations() -> None:
    rows = [("a", "closed", False), ("b", "missing_close", False), ("c", "closed", True)]
    rows += [(" \n", "empty", False), (None, "missing_open", False)]
    traces = pl.LazyFrame(rows, schema=["think", "state", "truncated"], orient="row")
    assert TeacherRole().keep_rows(traces, {}).collect()["think"].to_list() == ["a"]


@pytest.mark.parametrize(
    ("options", "world", "steps"),
    [
        ({}, 1, 9),
        ({}, 2, 6),
        ({"max_steps": 7}, 2, 7),
        ({"num_train_epochs": 1.5}, 1, 5),
        ({"gradient_accumulation_steps": 2, "num_train_epochs": 10}, 1, 20),
    ],
)
def test_steps_are_counted_as_the_trainer_counts_them(
    options: dict[str, Any], world: int, steps: int
) -> None:
    config = SftConfig(model="t", output="o", trainer={"per_device_train_batch_size": 8, **options})
    assert count_steps(config, 24, world=world) == steps
