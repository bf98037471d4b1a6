"""A training whose loss or weights are not finite stops in plain words, and saves no model."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlt_data.errors import StageStoppedError
from rlt_data.lake import Lake
from rlt_data.models import load_model, resolve_model
from rlt_data.training.common.divergence import DivergenceCallback
from rlt_data.training.common.saving import save_result
from rlt_data.training.rl.config import GrpoConfig
from rlt_data.training.rl.stage import train_grpo
from rlt_data.training.sft.config import SftConfig
from rlt_data.training.sft.stage import train_sft

pytest.importorskip("trl")

TRAINER = {"use_cpu": True, "gradient_checkpointing": False}


def change_weights(models: dict[str, str], folder: Path, change: Callable[[Any], Any]) -> Any:
    """Save the teacher with changed weights; return it loaded."""
    import torch

    from rlt_data.models import load_tokenizer

    identity = resolve_model(models["teacher"], role="teacher")
    model: Any = load_model(identity, dtype="float32", device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(change(parameter))
    model.save_pretrained(folder)
    load_tokenizer(identity).save_pretrained(folder)
    return model


def assert_nothing_is_saved(lake: Lake, output: Path) -> None:
    assert not list(output.glob("*/model"))
    assert (
        "finished" not in lake.table("runs").scan().filter(stage_is_training()).collect()["status"].to_list()
    )


def stage_is_training() -> Any:
    import polars as pl

    return pl.col("stage") != "ingest"


def test_sft_with_a_loss_that_is_not_finite_stops(models: dict[str, str], lake: Lake, tmp_path: Path) -> None:
    change_weights(models, tmp_path / "huge", lambda weights: weights * 1e37)
    trainer = {**TRAINER, "per_device_train_batch_size": 8, "max_steps": 3, "learning_rate": 1.0}
    config = SftConfig(model=str(tmp_path / "huge"), output=str(tmp_path / "out"), trainer=trainer)
    with pytest.raises(StageStoppedError, match="the training diverged") as raised:
        train_sft(lake, config)
    assert "step 1" in str(raised.value.where)
    assert "lower learning_rate" in str(raised.value.remedy)
    assert_nothing_is_saved(lake, tmp_path / "out")


def test_grpo_of_a_model_without_finite_probabilities_stops(
    models: dict[str, str], lake: Lake, tmp_path: Path
) -> None:
    change_weights(models, tmp_path / "huge", lambda weights: weights * 1e37)
    config = GrpoConfig(
        model=str(tmp_path / "huge"),
        students=(models["student"],),
        output=str(tmp_path / "out"),
        steps=2,
        questions_per_step=2,
        group_size=2,
        max_tokens=8,
        max_prompt_tokens=200,
        trainer=TRAINER,
    )
    with pytest.raises(StageStoppedError, match="the training diverged"):
        train_grpo(lake, config)
    assert_nothing_is_saved(lake, tmp_path / "out")


def test_a_model_with_a_weight_that_is_not_finite_is_not_saved(
    models: dict[str, str], tokenizer: Any, tmp_path: Path
) -> None:
    import torch
    from transformers import Trainer, TrainingArguments

    model = load_model(resolve_model(models["teacher"], role="teacher"), dtype="float32", device="cpu")
    trainer = Trainer(model=model, args=TrainingArguments(output_dir=str(tmp_path / "o"), use_cpu=True))
    model.requires_grad_(True)
    callback, state = DivergenceCallback("sft"), trainer.state
    callback.on_step_end(None, state, None, model=model)
    callback.on_log(None, state, None, logs={"loss": "1.5"})
    save_result(trainer, tokenizer, tmp_path / "model", about={"stage": "sft"})
    assert (tmp_path / "model" / "model.safetensors").is_file()
    with torch.no_grad():
        next(model.parameters())[0, 0] = math.nan
    with pytest.raises(StageStoppedError, match=r"the weights \S+ are not finite"):
        save_result(trainer, tokenizer, tmp_path / "other", about={"stage": "sft"})
    assert [path.name for path in tmp_path.iterdir() if "other" in path.name] in ([], [".other.lock"])
    with pytest.raises(StageStoppedError, match="the weights are not finite"):
        callback.on_step_end(None, state, None, model=model)
    for loss in (math.nan, math.inf, "nan"):
        with pytest.raises(StageStoppedError, match="loss"):
            callback.on_log(None, state, None, logs={"loss": loss})
