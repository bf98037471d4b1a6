"""Distributed training: only the main process reads and writes the lake; it sends the work to the others."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rlt_data.errors import StageStoppedError, require_module

_FAILED = "failed before the work was sent"
# The others wait while one process reads data or generates longer completions.
_TIMEOUT = timedelta(hours=2)
# Environment variables by which a launcher describes the other processes.
_LAUNCHER_VARIABLES = (
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_USE_FSDP",
)


class World:
    """The processes that `accelerate launch` or `torchrun` started; a single one where nothing did."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.is_main = int(os.environ.get("RANK", "0")) == 0
        self._sent = False

    def send(self, work: Any) -> None:
        """Send `work` (plain values) to every other process; called once, in the main process."""
        if not self._sent:
            self._sent = True
            self._broadcast([work])

    def fail(self) -> None:
        """Make the other processes stop waiting; does nothing after `send`."""
        self.send(_FAILED)

    def receive(self) -> Any:
        """Wait for what the main process sends. Raises `StageStoppedError` where it failed before that."""
        box: list[Any] = [None]
        self._broadcast(box)
        if box[0] == _FAILED:
            raise StageStoppedError("the main process stopped before training began; see its message")
        return box[0]

    def _broadcast(self, box: list[Any]) -> None:
        if self.size == 1:
            return
        accelerate = require_module("accelerate", "train")
        # Sets up the process group, with gloo on CPUs.
        accelerate.PartialState(cpu=not _has_accelerator(), timeout=_TIMEOUT)
        require_module("accelerate.utils", "train").broadcast_object_list(box, from_process=0)


@contextmanager
def train_alone() -> Iterator[None]:
    """Train something small in this process only, before it joins the other processes."""
    launched = {name: os.environ.pop(name) for name in _LAUNCHER_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(launched)
        state = require_module("accelerate.state", "train")
        state.AcceleratorState._reset_state(reset_partial_state=bool(launched))


def end_training() -> None:
    """Free the memory of a finished training: trainers are in reference cycles, which hold device memory."""
    gc.collect()
    torch = require_module("torch", "train")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _has_accelerator() -> bool:
    torch = require_module("torch", "train")
    return bool(torch.accelerator.is_available())


def choose_precision(options: dict[str, Any]) -> dict[str, Any]:
    """Choose precision and device where the options do not: float32 on a CPU, else TRL's defaults."""
    if _has_accelerator() and not options.get("use_cpu"):
        return {}
    defaults: dict[str, Any] = {"use_cpu": True}
    if "bf16" not in options and "fp16" not in options:
        defaults["bf16"] = False
    return defaults


def place_model(options: Mapping[str, Any]) -> dict[str, Any]:
    """Choose where TRL loads the model that it trains: a single process uses its first device.

    TRL's default spreads the model over all devices that the process sees, including those of students.
    """
    torch = require_module("torch", "train")
    alone = World().size == 1 and not options.get("use_cpu")
    return {"device_map": {"": 0}} if alone and torch.cuda.device_count() > 1 else {}


def keep_to_one_device(arguments: Any) -> None:
    """Make a single process train on one device; transformers would copy the model to each of several."""
    if World().size == 1 and arguments.n_gpu > 1:
        arguments._n_gpu = 1
