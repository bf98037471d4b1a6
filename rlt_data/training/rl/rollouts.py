"""Rows of training: each completion with its reward's parts and advantage, and each metric.

Both are committed while training runs, so that a query sees them within seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from rlt_data.hashing import hash_content
from rlt_data.stages.runtime.run import StageRun
from rlt_data.training.common.callbacks import Callback

# What a trainer logs that is no number about learning, or that says the same twice.
_LEFT_OUT = frozenset({"epoch", "total_flos", "train_runtime", "train_loss"})


class RolloutRecorder:
    """Turns what `RltTrainer` hands over into rows of `rollouts`.

    `decode` turns token ids into the raw completion. `earlier_rows` counts those that the same run left
    before an interruption where it samples otherwise the second time: groups are then told apart by it.
    """

    def __init__(
        self,
        run: StageRun,
        *,
        decode: Callable[[Sequence[int]], str],
        policy: str,
        earlier_rows: int = 0,
    ) -> None:
        self.run = run
        self.leg = [earlier_rows] if earlier_rows else []
        self.decode = decode
        self.policy = policy

    def record(self, rollouts: Sequence[Mapping[str, Any]]) -> None:
        """Append one generation's completions of all processes."""
        rows = [self._make_row(rollout) for rollout in rollouts]
        self.run.append("rollouts", rows)

    def _make_row(self, rollout: Mapping[str, Any]) -> dict[str, Any]:
        ids = list(rollout["completion_ids"])
        completion = self.decode(ids)
        scored = rollout["scored"]
        step, place, sample = (int(rollout[name]) for name in ("step", "place", "sample_index"))
        parts = dict(scored.parts) if scored is not None else {}
        return {
            **parts,
            "rollout_id": hash_content("rollout", self.run.run_id, step, place, sample, completion),
            "step": step,
            "question_id": rollout["question_id"],
            "group_id": hash_content("group", self.run.run_id, place, *self.leg),
            "sample_index": sample,
            "completion": completion,
            "think": scored.think if scored is not None else None,
            "state": scored.state if scored is not None else None,
            "truncated": bool(rollout["cut_off"]),
            "prompt_tokens": int(rollout["prompt_tokens"]),
            "completion_tokens": len(ids),
            "advantage": float(rollout["advantage"]),
            "policy_step": step,
            "policy": self.policy,
        }


def count_earlier_rows(run: StageRun) -> int:
    """Count the rollouts that this run left before it was interrupted."""
    mine = run.written("rollouts").filter(pl.col("run_id") == run.run_id)
    return int(mine.select(pl.len()).collect().item())


def count_rollouts(run: StageRun) -> None:
    """Count a whole training's tokens and cut-off completions, over all of its interruptions.

    From the rows, since steps after a checkpoint are taken again, and would be counted again.
    """
    mine = run.written("rollouts").filter(pl.col("run_id") == run.run_id)
    tokens, truncated = mine.select(pl.sum("completion_tokens"), pl.sum("truncated")).collect().row(0)
    run.count(tokens=int(tokens or 0), truncated=int(truncated or 0))


class MetricsCallback(Callback):
    """Appends what a trainer logs to `metrics`, one row a number, in the main process."""

    def __init__(self, run: StageRun | None, *, phase: str) -> None:
        self.run = run
        self.phase = phase

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **values: Any
    ) -> None:
        """Append one logging step."""
        if self.run is None or not logs or "train_runtime" in logs:
            return
        # Logged after the step was counted; rows count steps from 0.
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
    """Read the finite numbers of a trainer's log; transformers hands some over as text."""
    numbers = {}
    for name, value in logs.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        if name not in _LEFT_OUT and math.isfinite(number):
            numbers[name] = number
    return numbers
