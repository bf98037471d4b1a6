"""Two processes (gloo, CPU) train as one does: the same completions, the same rewards."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from faults.harness import read_rows

from rlt_data.lake import Lake
from rlt_data.recipe.training import load_training, run_training_recipe

pytest.importorskip("trl")

RECIPE = """
output = "{output}"
teacher = "fresh"
students = ["{student}"]

# Made in one process while the other waits.
[fresh]
examples = 24
batch_size = 12
epochs = 1
shape = {{ hidden_size = 32, heads = 2, key_value_heads = 2, feed_forward = 48, context = 512 }}

[sft.trainer]
max_steps = 2
per_device_train_batch_size = {texts}
use_cpu = true
gradient_checkpointing = false

[grpo]
steps = 3
questions_per_step = 2
group_size = 4
micro_batch_size = 4
max_tokens = 8
max_prompt_tokens = 200
save_every = 2

[grpo.trainer]
use_cpu = true
gradient_checkpointing = false
learning_rate = 1e-3
beta = 0.04
"""

PROGRAM = "from rlt_data_cli.main import main; main()"


def write_recipe(folder: Path, models: dict[str, str], processes: int) -> Path:
    recipe = folder / f"recipe-{processes}.toml"
    recipe.write_text(
        RECIPE.format(
            output=folder / f"out-{processes}",
            student=models["student"],
            texts=8 // processes,
        )
    )
    return recipe


def train_in_processes(folder: Path, lake: Lake, recipe: Path, processes: int) -> str:
    """Run `rlt-data train-teacher` in so many processes, as `torchrun` starts them; returns its stdout."""
    script = folder / "program.py"
    script.write_text(PROGRAM)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    command += [f"--master-port={port}", str(script)]
    command += ["train-teacher", str(recipe), "--lake", lake.uri, "--quiet"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "ACCELERATE_USE_CPU": "true"},
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=250)
    except subprocess.TimeoutExpired:
        # The processes that it started, too.
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert process.returncode == 0, output[-3000:] + errors[-3000:]
    return output


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_train_as_one(
    models: dict[str, str], make_lake: Callable[[Path], Lake], tmp_path: Path
) -> None:
    lakes = {n: make_lake(tmp_path / f"lake-{n}") for n in (1, 2)}
    run_training_recipe(load_training([write_recipe(tmp_path, models, 1)]), lakes[1])
    output = train_in_processes(tmp_path, lakes[2], write_recipe(tmp_path, models, 2), 2)
    # One summary of each stage: only the main process prints.
    assert output.count("grpo: finished") == 1
    one, two = (read_rows(lakes[n], "rollouts").sort("step", "question_id", "sample_index") for n in (1, 2))
    assert one.height == two.height == 24
    first = [rows.filter(step=0)["completion"].to_list() for rows in (one, two)]
    assert first[0] == first[1]
    same = [a == b for a, b in zip(one["completion"], two["completion"], strict=True)]
    assert sum(same) >= 20, "summation order may tip a draw now and then, no more"
    for rewards in zip(one["reward"], two["reward"], same, strict=True):
        if rewards[2]:
            assert rewards[0] == pytest.approx(rewards[1], abs=5e-3)
    assert one["advantage"].to_list()[:8] == pytest.approx(two["advantage"].to_list()[:8], abs=2e-2)
