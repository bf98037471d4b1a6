"""Rows of `rollouts`: each completion with the parts of its reward and its advantage.

They are committed while training runs, so that queries see them within seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import polars as pl

from rlt_data.hashing import hash_content
from rlt_data.stages.runtime.run import StageRun


class RolloutRecorder:
    """Turns the completions that `RltTrainer` records into rows of `rollouts`.

    `decode` turns token ids into the raw completion. `earlier_rows` is the number of rows that this run
    wrote before an interruption, where the steps it repeats sample other completions; it keeps the groups
    of the two apart. 0 where repeated steps sample the same completions.
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
        self._repetition = [earlier_rows] if earlier_rows else []
        self.decode = decode
        self.policy = policy

    def record(self, rollouts: Sequence[Mapping[str, Any]]) -> None:
        """Append the completions of one generation, of all processes."""
        rows = [self._make_row(rollout) for rollout in rollouts]
        self.run.append("rollouts", rows)

    def _make_row(self, rollout: Mapping[str, Any]) -> dict[str, Any]:
        ids = list(rollout["completion_ids"])
        completion = self.decode(ids)
        scored = rollout["scored"]
        step, group, sample = (int(rollout[name]) for name in ("step", "group_index", "sample_index"))
        parts = dict(scored.parts) if scored is not None else {}
        return {
            **parts,
            "rollout_id": hash_content("rollout", self.run.run_id, step, group, sample, completion),
            "step": step,
            "question_id": rollout["question_id"],
            "group_id": hash_content("group", self.run.run_id, group, *self._repetition),
            "sample_index": sample,
            "completion": completion,
            "think": scored.think if scored is not None else None,
            "state": scored.state if scored is not None else None,
            "truncated": bool(rollout["truncated"]),
            "prompt_tokens": int(rollout["prompt_tokens"]),
            "completion_tokens": len(ids),
            "advantage": float(rollout["advantage"]),
            "policy_step": step,
            "policy": self.policy,
        }


def count_earlier_rows(run: StageRun) -> int:
    """Count the rollouts that this run wrote before it was interrupted."""
    mine = run.written("rollouts").filter(pl.col("run_id") == run.run_id)
    return int(mine.select(pl.len()).collect().item())


def count_rollouts(run: StageRun) -> None:
    """Count tokens, truncated completions and groups of a whole training, over all of its interruptions.

    A group without spread has equal rewards, so that nothing is learned from it. All are counted from the
    rows: steps after a checkpoint are repeated, and would be counted twice.
    """
    mine = run.written("rollouts").filter(pl.col("run_id") == run.run_id)
    tokens, truncated = mine.select(pl.sum("completion_tokens"), pl.sum("truncated")).collect().row(0)
    run.count(tokens=int(tokens or 0), truncated=int(truncated or 0))
    spread = pl.col("reward").max() > pl.col("reward").min()
    groups = mine.group_by("group_id").agg(spread.fill_null(False).alias("spread"))
    total, spreading = groups.select(pl.len(), pl.sum("spread")).collect().row(0)
    run.summary.extra["groups"] = int(total)
    run.summary.extra["groups_without_spread"] = int(total) - int(spreading or 0)
