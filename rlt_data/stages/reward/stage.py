"""Reward: derive rewards again from stored token scores, under any settings, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import polars as pl
from pydantic import Field

from rlt_data.bounds import Rows
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.reward.derive import derive_reward, find_underivable
from rlt_data.reward.estimators import list_estimators
from rlt_data.reward.settings import RewardSettings
from rlt_data.stages.runtime.contract import LaterRunField, Over, RunField, StageConfig
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.selection import limit_rows, select_rows
from rlt_data.stages.runtime.stage import stage

CHUNK_ROWS = 20_000


class RewardConfig(StageConfig):
    """Which scores rewards are derived from, and under which settings."""

    reward: RunField[RewardSettings] = Field(default_factory=RewardSettings)
    where: RunField[Annotated[str | None, Over("scores")]] = Field(
        None, description="SQL predicate over scores: use only these."
    )
    limit: LaterRunField[Rows | None] = Field(
        None, description="Use only the first N scores, in the order of score_id."
    )


@stage(RewardConfig)
def reward(lake: Lake, config: RewardConfig) -> Preparation:
    """Derive rewards again from stored token scores: any estimator, weights, penalty or clipping, no model.

    Each run writes a whole new set, one row per score. A score without the columns that the settings need
    (teacher log-probabilities, or the exact divergence for the estimator full) goes to `rejects`.

    Raises `UsageError` where the predicate is not valid SQL.
    """
    return Preparation(lambda run: _derive_rewards(run, config))


def _derive_rewards(run: StageRun, config: RewardConfig) -> None:
    settings = config.reward
    names = ("score_id", "trace_id", "question_id", "student")
    underivable = find_underivable(settings)
    derived = (
        limit_rows(select_rows(run, "scores", config.where), config.limit, key="score_id", order=["score_id"])
        .select(*names, underivable.alias("underivable"), *derive_reward(settings))
        .sort("score_id")
        .collect(engine="streaming")
    )
    own = settings.model_dump(mode="json")
    with run.track("derive rewards", derived.height) as task:
        for chunk in derived.iter_slices(CHUNK_ROWS):
            run.count(rows_in=chunk.height)
            kept = chunk.filter(~pl.col("underivable"))
            keys = [hash_content("reward", run.run_id, i, own) for i in kept.get_column("score_id").to_list()]
            run.append(
                "rewards", kept.drop("underivable").with_columns(pl.Series("reward_id", keys, pl.String))
            )
            for row in chunk.filter(pl.col("underivable")).iter_rows(named=True):
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
