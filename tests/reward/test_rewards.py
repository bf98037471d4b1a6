"""Combining the rewards of several students."""

from __future__ import annotations

from typing import Any, cast

import pytest

from rlt_data.reward.rewards import RewardParts, combine_parts


def make_parts(reward: float | None) -> RewardParts:
    return RewardParts(
        estimator="k1",
        alpha=0.01,
        lambda_kl=3.0,
        solution_logprob_avg=-1.0,
        solution_logprob_min=-2.0,
        kl_avg=None if reward is None else 0.5,
        kl_max=None if reward is None else 1.0,
        format_penalty=0.0,
        r_ss=-1.0 if reward is None else reward,
        r_kl=None if reward is None else 0.5,
        reward=reward,
    )


def test_the_minimum_takes_all_parts_of_one_student() -> None:
    low, high, none = make_parts(-3.0), make_parts(-1.0), make_parts(None)
    assert combine_parts([high, low], "minimum") is low
    assert combine_parts([low, none], "minimum") is none


def test_the_mean_is_over_the_students_that_have_a_part() -> None:
    combined = combine_parts([make_parts(-3.0), make_parts(-1.0), make_parts(None)], "mean")
    assert combined.reward == -2.0
    assert combined.kl_avg == 0.5
    assert combined.r_ss == pytest.approx(-5 / 3)
    assert combine_parts([make_parts(None)], "mean").reward is None


def test_an_unknown_way_to_combine_is_refused_and_not_replaced() -> None:
    with pytest.raises(AssertionError, match="median"):
        combine_parts([make_parts(-1.0)], cast(Any, "median"))
