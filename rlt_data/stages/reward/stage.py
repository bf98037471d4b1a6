"""Reward: derive rewards again from stored token scores, under any settings, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
from pydantic import Field

from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.progress import Reporter
from rlt_data.reward.derive import derive_reward, find_underivable
from rlt_data.reward.estimators import list_estimators
from rlt_data.reward.settings import RewardSettings
from rlt_data.stages.runtime.run import StageConfig, StageRun, StageSummary, open_run
from rlt_data.stages.runtime.selection import select_rows

CHUNK_ROWS = 20_000


class RewardConfig(StageConfig):
    """What `rlt-data reward` does."""

    reward: RewardSettings = Field(default_factory=RewardSettings)
    where: str | None = Field(None, description="SQL predicate over scores; others are left alone.")


def reward(
    lake: Lake, config: RewardConfig, *, force: bool = False, reporter: Reporter | None = None
) -> StageSummary:
    """Derive rewards again from stored token scores: any estimator, weights, penalty or clipping, no model.

    One row a score, a whole new set a run. A score without the columns that the settings need (teacher
    log-probabilities, or the exact divergence for the estimator full) goes to `rejects`.

    Raises `UsageError` where the predicate is no SQL.
    """
    with open_run(
        lake, "reward", config, inputs=("scores",), outputs=("rewards",), force=force, reporter=reporter
    ) as run:
        if run.already_done:
            return run.summary
        _derive_rewards(run, config)
    return run.summary


def _derive_rewards(run: StageRun, config: RewardConfig) -> None:
    settings = config.reward
    names = ("score_id", "trace_id", "question_id", "student")
    lacking = find_underivable(settings)
    derived = (
        select_rows(run, "scores", config.where)
        .select(*names, lacking.alias("lacking"), *derive_reward(settings))
        .sort("score_id")
        .collect(engine="streaming")
    )
    own = settings.model_dump(mode="json")
    with run.track("deriving rewards", derived.height) as task:
        for chunk in derived.iter_slices(CHUNK_ROWS):
            run.count(rows_in=chunk.height)
            kept = chunk.filter(~pl.col("lacking"))
            keys = [hash_content("reward", run.run_id, i, own) for i in kept.get_column("score_id").to_list()]
            run.append("rewards", kept.drop("lacking").with_columns(pl.Series("reward_id", keys, pl.String)))
            for row in chunk.filter(pl.col("lacking")).iter_rows(named=True):
                _reject_score(run, row, settings)
            task.advance(chunk.height)


def _reject_score(run: StageRun, row: Mapping[str, Any], settings: RewardSettings) -> None:
    exact = settings.needs_divergences
    run.reject(
        source="scores",
        reason="no_exact_divergence" if exact else "no_teacher_side",
        detail="the exact divergence was not stored: score with --exact, or use the estimator "
        f"{list_estimators(exact=False)}"
        if exact
        else "only student log-probabilities were stored: score with --teacher MODEL, or use --lambda 0",
        key=row["trace_id"],
        content=row["score_id"],
    )
