"""The reward's formulae, against sums written out by hand over the same numbers."""

from __future__ import annotations

import math
from typing import Any, cast, get_args

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rlt_data.reward.derive import (
    REWARD_COLUMN_NAMES,
    derive_divergence,
    derive_reward,
    find_underivable,
)
from rlt_data.reward.estimators import ESTIMATORS, Estimator
from rlt_data.reward.settings import RewardSettings
from rlt_data.schemas import REWARD_COLUMNS

SCHEMA = {
    "solution_logprobs": pl.List(pl.Float32),
    "think_student_logprobs": pl.List(pl.Float32),
    "think_teacher_logprobs": pl.List(pl.Float32),
    "think_divergences": pl.List(pl.Float32),
    "closed": pl.Boolean,
}

Row = dict[str, list[float] | bool | None]


def derive_one(row: Row, settings: RewardSettings) -> dict[str, float | None]:
    frame = pl.DataFrame([row], schema=SCHEMA).select(derive_reward(settings))
    return frame.row(0, named=True)


def make_row(**changes: list[float] | bool | None) -> Row:
    row: Row = {
        "solution_logprobs": [-1.0, -3.0],
        "think_student_logprobs": [-2.0, -1.0, -4.0],
        "think_teacher_logprobs": [-1.0, -2.0, -0.5],
        "think_divergences": [0.5, 0.25, 1.5],
        "closed": True,
    }
    return row | changes


def test_columns_are_those_of_the_schema_in_order() -> None:
    frame = pl.DataFrame([make_row()], schema=SCHEMA).select(derive_reward(RewardSettings()))
    assert tuple(frame.columns) == REWARD_COLUMN_NAMES == tuple(c.name for c in REWARD_COLUMNS)
    assert frame.schema["reward"] == pl.Float64


@pytest.mark.parametrize(
    ("estimator", "divergences"),
    [
        ("k1", [1.0, -1.0, 3.5]),
        ("k3", [math.exp(-1.0), math.exp(1.0) - 2.0, math.exp(-3.5) + 2.5]),
        ("full", [0.5, 0.25, 1.5]),
    ],
)
def test_reward_by_hand(estimator: Estimator, divergences: list[float]) -> None:
    settings = RewardSettings(estimator=estimator, alpha=0.1, lambda_kl=2.0)
    derived = derive_one(make_row(closed=False), settings)
    r_ss = -2.0 + 0.1 * -3.0
    r_kl = sum(divergences) / 3 + 0.1 * max(divergences)
    assert derived["r_ss"] == pytest.approx(r_ss)
    assert derived["kl_avg"] == pytest.approx(sum(divergences) / 3)
    assert derived["kl_max"] == pytest.approx(max(divergences))
    assert derived["format_penalty"] == -1.0
    assert derived["reward"] == pytest.approx(r_ss - 2.0 * r_kl - 1.0)


@pytest.mark.parametrize(("closed", "penalty"), [(True, 0), (None, 0), (False, -1)])
def test_only_an_explanation_that_never_closes_pays(closed: bool | None, penalty: float) -> None:
    assert derive_one(make_row(closed=closed), RewardSettings())["format_penalty"] == penalty


def test_every_estimator_is_defined_once() -> None:
    assert tuple(ESTIMATORS) == get_args(Estimator)
    assert all(name in (RewardSettings.model_fields["estimator"].description or "") for name in ESTIMATORS)


def test_an_unknown_estimator_is_refused_and_not_replaced() -> None:
    with pytest.raises(KeyError, match="k9"):
        derive_divergence(cast(Any, "k9"))


@pytest.mark.parametrize("estimator", get_args(Estimator))
def test_a_score_without_the_columns_of_its_estimator_is_found(estimator: Estimator) -> None:
    settings = RewardSettings(estimator=estimator)
    for column in ESTIMATORS[estimator].columns:
        frame = pl.DataFrame([make_row(), make_row(**{column: None})], schema=SCHEMA)
        assert frame.select(find_underivable(settings)).to_series().to_list() == [False, True]
        assert frame.select(derive_reward(settings)[-1].is_null()).to_series().to_list() == [False, True]
        alone = settings.model_copy(update={"lambda_kl": 0.0})
        assert not frame.select(find_underivable(alone)).to_series().any()


def test_empty_explanation_has_no_divergence() -> None:
    empty = make_row(think_student_logprobs=[], think_teacher_logprobs=[], think_divergences=[])
    for estimator in ESTIMATORS:
        derived = derive_one(empty, RewardSettings(estimator=estimator))
        assert derived["kl_avg"] == derived["kl_max"] == 0.0
        assert derived["reward"] == derived["r_ss"]


def test_without_teacher_log_probabilities_only_r_ss_is_derived() -> None:
    row = make_row(think_teacher_logprobs=None, think_divergences=None)
    derived = derive_one(row, RewardSettings())
    assert derived["kl_avg"] is None
    assert derived["r_kl"] is None
    assert derived["reward"] is None
    assert derive_one(row, RewardSettings(lambda_kl=0.0))["reward"] == derived["r_ss"]


def test_clipping() -> None:
    settings = RewardSettings(clip_logprob=-2.0, clip_kl=0.75)
    derived = derive_one(make_row(), settings)
    assert derived["solution_logprob_avg"] == -1.5
    assert derived["solution_logprob_min"] == -2.0
    assert derived["kl_avg"] == pytest.approx((0.75 - 0.75 + 0.75) / 3)
    assert derived["kl_max"] == 0.75


logprobs = st.floats(-12, 0, width=32)


@given(st.lists(st.tuples(logprobs, logprobs), min_size=1, max_size=20))
@example([(0.0, -1.0089348943138683e-43)])
def test_k3_is_never_negative_and_vanishes_where_the_models_agree(pairs: list[tuple[float, float]]) -> None:
    student = [pair[0] for pair in pairs]
    row = make_row(think_student_logprobs=student, think_teacher_logprobs=[pair[1] for pair in pairs])
    derived = derive_one(row, RewardSettings(estimator="k3"))
    assert derived["kl_avg"] is not None
    assert derived["kl_avg"] >= 0
    same = derive_one(row | {"think_teacher_logprobs": student}, RewardSettings(estimator="k3"))
    assert same["kl_avg"] == same["kl_max"] == 0
