"""Several processes, one run: the main process alone reads and writes the lake, the others get their work."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rlt_data.errors import StageStoppedError, require_module

_FAILED = "failed before the work was handed out"
# While one process reads data, or its completions take longer, the others wait for it.
_PATIENCE = timedelta(hours=2)
# What tells a process of the others.
_LAUNCHED = (
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
        """Hand `work` (plain values) to every other process; called in the main process, once."""
        if not self._sent:
            self._sent = True
            self._broadcast([work])

    def fail(self) -> None:
        """Tell the others that there will be no work, so that they do not wait for it."""
        self.send(_FAILED)

    def receive(self) -> Any:
        """Wait for what the main process sends. Raises `StageStoppedError` where it failed before."""
        box: list[Any] = [None]
        self._broadcast(box)
        if box[0] == _FAILED:
            raise StageStoppedError("the main process stopped before training began; it says why")
        return box[0]

    def _broadcast(self, box: list[Any]) -> None:
        if self.size == 1:
            return
        accelerate = require_module("accelerate", "train")
        # The state sets the process group up, with gloo on CPUs.
        accelerate.PartialState(cpu=not _has_accelerator(), timeout=_PATIENCE)
        require_module("accelerate.utils", "train").broadcast_object_list(box, from_process=0)


@contextmanager
def train_alone() -> Iterator[None]:
    """Train something small in this process only, before the others are met; they know nothing of it."""
    launched = {name: os.environ.pop(name) for name in _LAUNCHED if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(launched)
        state = require_module("accelerate.state", "train")
        state.AcceleratorState._reset_state(reset_partial_state=bool(launched))


def end_training() -> None:
    """Let go of a training that is over: trainers hold on to themselves, and their weights to the device."""
    gc.collect()
    torch = require_module("torch", "train")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _has_accelerator() -> bool:
    torch = require_module("torch", "train")
    return bool(torch.accelerator.is_available())


def choose_precision(options: dict[str, Any]) -> dict[str, Any]:
    """Options of precision and device where the recipe names none: float32 on a CPU, else TRL's default."""
    if _has_accelerator() and not options.get("use_cpu"):
        return {}
    defaults: dict[str, Any] = {"use_cpu": True}
    if "bf16" not in options and "fp16" not in options:
        defaults["bf16"] = False
    return defaults


def place_model(options: Mapping[str, Any]) -> dict[str, Any]:
    """Where TRL is to load the model that it trains: one process keeps to its first device.

    By itself TRL spreads it over all devices that a single process sees, students' devices among them.
    """
    torch = require_module("torch", "train")
    alone = World().size == 1 and not options.get("use_cpu")
    return {"device_map": {"": 0}} if alone and torch.cuda.device_count() > 1 else {}


def keep_to_one_device(arguments: Any) -> None:
    """Let one process train on one device of several, where transformers would copy the model to each."""
    if World().size == 1 and arguments.n_gpu > 1:
        arguments._n_gpu = 1
