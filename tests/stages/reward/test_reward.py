"""Rewards derived again from stored scores agree with scoring under those settings."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from stages.score.golden_lake import build_golden_lake

from rlt_data.lake import Lake
from rlt_data.reward.settings import RewardSettings
from rlt_data.stages.reward import RewardConfig, reward
from rlt_data.stages.score import ScoreConfig, score


@pytest.fixture(scope="module")
def scored(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, Path]:
    folder = tmp_path_factory.mktemp("scored")
    lake, format_path = build_golden_lake(golden, folder)
    score(lake, ScoreConfig(students=(str(golden / "student"),), format=format_path))
    return lake, folder


def read_rewards(lake: Lake, run_id: str) -> pl.DataFrame:
    return lake.table("rewards").scan().filter(pl.col("run_id") == run_id).sort("trace_id").collect()


def test_same_settings_give_the_same_rewards(scored: tuple[Lake, Path]) -> None:
    lake, _ = scored
    summary = reward(lake, RewardConfig())
    derived = read_rewards(lake, summary.run_id)
    stored = lake.table("scores").scan().sort("trace_id").collect()
    assert derived.height == summary.rows_out == 12
    assert derived.get_column("reward").to_list() == pytest.approx(stored.get_column("reward").to_list())


def test_a_sweep_needs_no_model(scored: tuple[Lake, Path]) -> None:
    lake, _ = scored
    for settings in (
        RewardSettings(lambda_kl=0.5),
        RewardSettings(estimator="k3", alpha=0.0),
        RewardSettings(penalty=-7.0),
    ):
        summary = reward(lake, RewardConfig(reward=settings))
        rows = read_rewards(lake, summary.run_id)
        by_hand = rows.select(
            pl.col("solution_logprob_avg")
            + settings.alpha * pl.col("solution_logprob_min")
            - settings.lambda_kl * (pl.col("kl_avg") + settings.alpha * pl.col("kl_max"))
            + pl.col("format_penalty")
        ).to_series()
        assert rows.get_column("reward").to_list() == pytest.approx(by_hand.to_list())
        assert set(rows.get_column("format_penalty").to_list()) == {0.0, settings.penalty}


def test_scores_without_the_required_columns_are_rejected(scored: tuple[Lake, Path]) -> None:
    lake, _ = scored
    summary = reward(lake, RewardConfig(reward=RewardSettings(estimator="full")))
    assert (summary.rows_in, summary.rows_out, summary.rejected) == (12, 0, 12)
    rejects = lake.table("rejects").scan().filter(pl.col("run_id") == summary.run_id).collect()
    assert set(rejects.get_column("reason").to_list()) == {"no_exact_divergence"}


def test_where_narrows_the_scores(scored: tuple[Lake, Path]) -> None:
    lake, _ = scored
    assert reward(lake, RewardConfig(where="not closed")).rows_out == 2


def test_limit_takes_the_first_scores(scored: tuple[Lake, Path]) -> None:
    lake, _ = scored
    summary = reward(lake, RewardConfig(limit=5))
    every = lake.table("scores").scan().select("score_id").collect().get_column("score_id").sort()
    derived = read_rewards(lake, summary.run_id).get_column("score_id").sort()
    assert derived.to_list() == every.head(5).to_list()
