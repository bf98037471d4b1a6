"""Several processes (gloo, CPU) take the steps of one: the same examples in the same order, also resumed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlt_data.formats import load_format
from rlt_data.models import load_tokenizer, resolve_model
from rlt_data.training.sft.examples import Explained, build_student_examples
from rlt_data.training.sft.sft_trainer import run_sft_trainer
from rlt_data.training.sft.tokenized import TokenizedExamples

pytest.importorskip("trl")

EPOCHS, BATCH, RESUMED = 3, 4, 6
"""13 examples: 4 steps an epoch, the last of one example. Step 6 is within the second epoch."""


def build_examples(tokenizer: Any) -> TokenizedExamples:
    rows = [
        Explained(f"{i % 9} + 1 =", f"The answer is {i % 9 + 1}.", "First 1 + 2 = 3." * (1 + i % 4))
        for i in range(13)
    ]
    return TokenizedExamples.collect(build_student_examples(load_format("stratos"), tokenizer, rows))


def train(model: str, folder: Path, *, world: int, packed: bool, resume: bool = False) -> dict[str, Any]:
    """Train in this process (or as one of several); returns weights and logged figures by step."""
    tokenizer = load_tokenizer(resolve_model(model, role="student"))
    examples = build_examples(tokenizer)
    trainer = run_sft_trainer(
        model,
        tokenizer,
        examples,
        examples.make_packed_dataset(200) if packed else None,
        options={
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "optim": "sgd",
            "learning_rate": 0.5,
            "lr_scheduler_type": "constant",
            "num_train_epochs": EPOCHS,
            "per_device_train_batch_size": BATCH // 2 if packed else BATCH // world,
            "packing": packed,
            "max_grad_norm": 0.0,
            "logging_steps": 1,
            "save_steps": 2 if packed else RESUMED,
            "save_strategy": "no" if resume else "steps",
            "seed": 3,
            "model_init_kwargs": {"dtype": "float32", "local_files_only": True},
        },
        output_dir=folder,
        resume_from=folder / f"checkpoint-{2 if packed else RESUMED}" if resume else None,
    )
    weights = {
        name: value.detach().numpy().copy()
        for name, value in trainer.accelerator.unwrap_model(trainer.model).named_parameters()
    }
    figures = ("loss", "num_tokens", "learning_rate", "mean_token_accuracy")
    logged = {
        str(entry["step"]): {name: float(entry[name]) for name in figures}
        for entry in trainer.state.log_history
        if "loss" in entry
    }
    return {"weights": weights, "logged": logged}


def save(found: dict[str, Any], path: Path) -> None:
    np.savez(path.with_suffix(".npz"), **found["weights"])
    path.with_suffix(".json").write_text(json.dumps(found["logged"]))


def load(path: Path) -> dict[str, Any]:
    weights = dict(np.load(path.with_suffix(".npz")))
    return {"weights": weights, "logged": json.loads(path.with_suffix(".json").read_text())}


def main(model: str, folder: str, packed: str) -> None:
    """One of several processes: train, then again from the checkpoint within the second epoch."""
    for name, resume in (("whole", False), ("resumed", True)):
        found = train(model, Path(folder), world=2, packed=packed == "packed", resume=resume)
        if os.environ["RANK"] == "0":
            save(found, Path(folder) / name)


def run_in_processes(model: str, folder: Path, mode: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}"]
    process = subprocess.Popen(
        [*command, __file__, model, str(folder), mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"},
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=250)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, output[-4000:]


def assert_same(one: dict[str, Any], other: dict[str, Any], figures: tuple[str, ...]) -> None:
    assert one["logged"].keys() == other["logged"].keys()
    for step, entry in one["logged"].items():
        for name in figures:
            assert entry[name] == pytest.approx(other["logged"][step][name], rel=2e-5, abs=1e-6), (step, name)
    for name, value in one["weights"].items():
        np.testing.assert_allclose(value, other["weights"][name], atol=2e-5, rtol=0, err_msg=name)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["plain", "packed"])
def test_two_processes_take_the_steps_of_one(models: dict[str, str], tmp_path: Path, mode: str) -> None:
    """Also resumed in the second epoch, where transformers once gave other rows (its PR 40691), and with a
    last step of one example, which accelerate would fill up with examples of the first."""
    run_in_processes(models["student"], tmp_path, mode)
    whole, resumed = load(tmp_path / "whole"), load(tmp_path / "resumed")
    assert_same(whole, resumed, ("loss", "num_tokens", "learning_rate", "mean_token_accuracy"))
    if mode == "plain":
        alone = train(models["student"], tmp_path / "alone", world=1, packed=False)
        assert len(alone["logged"]) == EPOCHS * 4
        assert_same(alone, whole, ("loss", "num_tokens", "learning_rate"))


if __name__ == "__main__":
    main(*sys.argv[1:])
