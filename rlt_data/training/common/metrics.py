"""Rows of `metrics`: one number that a trainer logged, by step and name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rlt_data.hashing import hash_content
from rlt_data.stages.runtime.run import StageRun
from rlt_data.training.common.callbacks import Callback

# Logged by trainers, but unrelated to learning, or the same as another metric.
_EXCLUDED = frozenset({"epoch", "total_flos", "train_runtime", "train_loss"})


class MetricsCallback(Callback):
    """Appends what a trainer logs to `metrics`, one row per number, in the main process."""

    def __init__(self, run: StageRun | None, *, phase: str) -> None:
        self.run = run
        self.phase = phase

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **values: Any
    ) -> None:
        """Append one logging step."""
        if self.run is None or not logs or "train_runtime" in logs:
            return
        # Trainers log after they have counted the step; rows count steps from 0.
        step = max(0, state.global_step - 1)
        rows = [
            {
                "metric_id": hash_content("metric", self.run.run_id, self.phase, step, name),
                "phase": self.phase,
                "step": step,
                "name": name,
                "value": value,
            }
            for name, value in read_numbers(logs).items()
        ]
        self.run.append("metrics", rows)


def read_numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """Read the finite numbers of a trainer's log; transformers logs some of them as text."""
    numbers = {}
    for name, value in logs.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        if name not in _EXCLUDED and math.isfinite(number):
            numbers[name] = number
    return numbers
