"""Intervals, against published values and against what must hold for any data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.tasks.intervals import (
    Interval,
    combine_intervals,
    compute_bootstrap_interval,
    compute_mean_interval,
    compute_wilson_interval,
    find_student_quantile,
)

SCORES = st.lists(st.integers(0, 8).map(lambda correct: correct / 8), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (7, 30, 11.8, 40.9),
        (6, 30, 9.5, 37.3),
        (84, 198, 35.7, 49.4),
        (75, 198, 31.4, 44.8),
        (414, 500, 79.2, 85.9),
        (410, 500, 78.4, 85.1),
        (0, 10, 0.0, 27.8),
        (10, 10, 72.2, 100.0),
    ],
)
def test_wilson(correct: int, total: int, low: float, high: float) -> None:
    interval = compute_wilson_interval(correct, total)
    assert (round(100 * interval.low, 1), round(100 * interval.high, 1)) == (low, high)
    assert interval.value == correct / total


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_what_is_not_a_share(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match="not a share"):
        compute_wilson_interval(correct, total)


@given(st.integers(1, 2000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_wilson_contains_the_share_and_is_symmetric(case: tuple[int, int]) -> None:
    correct, total = case
    interval = compute_wilson_interval(correct, total)
    other = compute_wilson_interval(total - correct, total)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.low == pytest.approx(1 - other.high, abs=1e-12)
    assert compute_wilson_interval(4 * correct, 4 * total).high - interval.value <= interval.high


@given(SCORES, st.integers(0, 100))
def test_bootstrap_contains_the_mean_whatever_the_order(scores: list[float], seed: int) -> None:
    interval = compute_bootstrap_interval(scores, resamples=200, seed=seed)
    assert interval.value == pytest.approx(np.mean(scores))
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert compute_bootstrap_interval(scores[::-1], resamples=200, seed=seed) == interval


def test_bootstrap_agrees_with_resampling_question_by_question() -> None:
    scores = np.random.default_rng(5).binomial(16, 0.3, size=198) / 16
    generator = np.random.default_rng(6)
    plain = scores[generator.integers(0, 198, size=(20_000, 198))].mean(axis=1)
    interval = compute_bootstrap_interval(scores)
    assert [interval.low, interval.high] == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.003)


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (29, 2.045), (197, 1.972)],
)
def test_student_quantiles(freedom: int, quantile: float) -> None:
    assert find_student_quantile(freedom) == pytest.approx(quantile, rel=0.003)


@pytest.mark.parametrize("size", [5, 30])
def test_bootstrap_covers_the_truth_with_few_questions(size: int) -> None:
    """Plain percentiles of five questions contain it in 85 of 100 draws."""
    generator = np.random.default_rng(size)
    hits = 0
    for seed in range(400):
        scores = generator.binomial(16, generator.beta(2, 2, size=size)) / 16
        interval = compute_bootstrap_interval(scores, resamples=500, seed=seed)
        hits += interval.low <= 0.5 <= interval.high
    assert hits / 400 > 0.9


def test_bootstrap_depends_on_its_seed() -> None:
    scores = [0.1, 0.5, 0.6, 0.9, 0.3]
    assert compute_bootstrap_interval(scores, seed=1) == compute_bootstrap_interval(scores, seed=1)
    assert compute_bootstrap_interval(scores, seed=1) != compute_bootstrap_interval(scores, seed=2)


def test_bootstrap_needs_questions() -> None:
    with pytest.raises(ValueError, match="no questions"):
        compute_bootstrap_interval([])


@pytest.mark.parametrize("correct", [0.0, 1.0, 0.5])
def test_equal_scores_do_not_give_an_interval_without_width(correct: float) -> None:
    interval = compute_mean_interval([correct] * 30, 16)
    assert interval == compute_wilson_interval(30 * correct, 30)
    assert interval.high - interval.low > 0.1


def test_the_method_follows_the_number_of_samples() -> None:
    scores = [1.0, 0.0, 0.0]
    assert compute_mean_interval(scores, 1).method == "wilson"
    assert compute_mean_interval(scores, 4).method == "bootstrap over questions"


def test_combined_intervals_add_squares() -> None:
    combined = combine_intervals([Interval(0.5, 0.2, 0.9, ""), Interval(0.7, 0.3, 1.0, "")])
    assert combined.value == pytest.approx(0.6)
    assert combined.low == pytest.approx(0.6 - math.hypot(0.3, 0.4) / 2)
    assert combined.high == pytest.approx(0.6 + math.hypot(0.4, 0.3) / 2)
    only = Interval(0.5, 0.2, 0.9, "")
    assert combine_intervals([only]).low == pytest.approx(only.low)
