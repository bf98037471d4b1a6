"""Paired comparison: published values, exact counts, coverage, and what must hold for any two models."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.tasks.intervals import compute_wilson_interval
from rlt_data.tasks.paired import (
    PairedDifference,
    Spread,
    combine_differences,
    compare_questions,
    compute_paired_interval,
    find_needed,
)


def make_questions(correct: list[int], samples: list[int] | int, *, names: str = "q") -> pl.DataFrame:
    numbers = [samples] * len(correct) if isinstance(samples, int) else samples
    return pl.DataFrame(
        {
            "question_id": [f"{names}{i:04}" for i in range(len(correct))],
            "samples": pl.Series(numbers, dtype=pl.Int64),
            "correct": pl.Series(correct, dtype=pl.Int64),
        }
    ).with_columns((pl.col("correct") / pl.col("samples")).alias("score"))


def compare(
    model: list[int], baseline: list[int], samples: int = 1, other: int | None = None
) -> PairedDifference:
    found = compare_questions(make_questions(model, samples), make_questions(baseline, other or samples))
    assert found is not None
    return found


PAIRS = st.integers(1, 6).flatmap(
    lambda k: st.lists(st.tuples(st.integers(0, k), st.integers(0, k)), min_size=1, max_size=12).map(
        lambda rows: (k, [a for a, _ in rows], [b for _, b in rows])
    )
)


def test_newcombe_agrees_with_the_published_example() -> None:
    interval = compute_paired_interval(36, 12, 2, 0)
    assert (round(interval.low, 4), round(interval.high, 4)) == (0.0569, 0.3404)


def test_without_correlation_it_is_the_interval_of_independent_shares() -> None:
    """Newcombe's interval adds the distances to the ends of Wilson's as squares."""
    first, second = compute_wilson_interval(20, 40), compute_wilson_interval(16, 40)
    low = 0.1 - math.hypot(first.value - first.low, second.high - second.value)
    assert compute_paired_interval(8, 12, 8, 12).low == pytest.approx(low)


def test_seven_right_against_six_is_no_evidence() -> None:
    model = [1] * 7 + [0] * 23
    baseline = [1] * 5 + [0] * 2 + [1] + [0] * 22
    found = compare(model, baseline)
    assert found.scores == (pytest.approx(7 / 30), pytest.approx(6 / 30))
    assert found.difference.low < 0 < found.difference.high
    assert (found.p_value, found.test) == (pytest.approx(1.0), "mcnemar, exact")
    assert not found.separated
    # reach^2 * variance / (n * difference^2)
    variance = (3 / 30 - 1 / 900) * 30 / 29
    expected = (1.959964 + 0.841621) ** 2 * variance * 30
    assert found.needed.samples == math.ceil(expected)
    assert found.needed.at_least
    assert found.needed.questions == math.ceil(30 * expected)


@pytest.mark.parametrize(("model_only", "baseline_only"), [(5, 0), (6, 0), (9, 2), (3, 3), (1, 0)])
def test_one_sample_gives_mcnemars_exact_test(model_only: int, baseline_only: int) -> None:
    found = compare(
        [1] * model_only + [0] * baseline_only + [1] * 20, [0] * model_only + [1] * baseline_only + [1] * 20
    )
    discordant = model_only + baseline_only
    tail = sum(math.comb(discordant, i) for i in range(max(model_only, baseline_only), discordant + 1))
    assert found.p_value == pytest.approx(min(1.0, 2 * tail / 2**discordant))


@given(PAIRS)
def test_sign_flips_are_counted_exactly(case: tuple[int, list[int], list[int]]) -> None:
    k, model, baseline = case
    found = compare(model, baseline, k)
    differences = [a - b for a, b in zip(model, baseline, strict=True)]
    sums = [
        sum(s * d for s, d in zip(signs, differences, strict=True))
        for signs in product((1, -1), repeat=len(model))
    ]
    extreme = sum(abs(value) >= abs(sum(differences)) for value in sums)
    assert found.p_value == pytest.approx(extreme / len(sums), abs=1e-9)


@given(PAIRS)
def test_laws(case: tuple[int, list[int], list[int]]) -> None:
    k, model, baseline = case
    found, swapped = compare(model, baseline, k), compare(baseline, model, k)
    difference = found.difference
    assert difference.low <= difference.value + 1e-12
    assert difference.value <= difference.high + 1e-12
    assert difference.value == pytest.approx(found.scores[0] - found.scores[1], abs=1e-9)
    assert swapped.difference.value == pytest.approx(-difference.value, abs=1e-9)
    assert swapped.p_value == pytest.approx(found.p_value)
    assert swapped.needed == found.needed
    assert 0 < found.p_value <= 1
    first, second = make_questions(model, k), make_questions(baseline, k)
    assert compare_questions(first.reverse(), second.reverse()) == found
    assert compare_questions(first, first).p_value == 1.0  # type: ignore[union-attr]
    assert not compare_questions(first, first).separated  # type: ignore[union-attr]


def test_one_sample_swaps_to_the_mirrored_interval() -> None:
    found, swapped = compare([1, 1, 0, 0, 1], [0, 1, 0, 0, 0]), compare([0, 1, 0, 0, 0], [1, 1, 0, 0, 1])
    assert (swapped.difference.low, swapped.difference.high) == (
        pytest.approx(-found.difference.high),
        pytest.approx(-found.difference.low),
    )


def test_only_common_questions_are_compared() -> None:
    first = pl.concat([make_questions([1, 0], 1), make_questions([1] * 5, 1, names="mine")])
    second = pl.concat([make_questions([0, 0], 1), make_questions([1] * 3, 1, names="theirs")])
    found = compare_questions(first, second)
    assert found is not None
    assert (found.questions, found.only_model, found.only_baseline) == (2, 5, 3)
    assert found.difference.value == pytest.approx(0.5)
    assert compare_questions(first, make_questions([1], 1, names="other")) is None


def test_a_clear_difference_is_separated() -> None:
    found = compare([4, 3, 4, 4, 2, 4, 3, 4, 4, 3] * 3, [0, 1, 1, 0, 0, 2, 0, 1, 0, 1] * 3, 4)
    assert found.separated
    assert found.difference.method == "bootstrap over questions"
    assert (found.p_value < 1e-6, found.test) == (True, "sign flips, exact")
    assert found.needed.samples == 1
    assert not found.needed.at_least


def test_equal_models_have_an_interval_with_width() -> None:
    for k in (1, 8):
        found = compare([k] * 5 + [0] * 5, [k] * 5 + [0] * 5, k)
        assert found.difference.low < 0 < found.difference.high
        assert (found.needed.samples, found.needed.questions) == (None, None)


def test_unequal_numbers_of_samples() -> None:
    found = compare_questions(make_questions([1, 2, 7], [3, 5, 7]), make_questions([1, 4, 0], [2, 11, 13]))
    assert found is not None
    assert found.test == "sign flips, exact"
    assert found.samples == (5.0, pytest.approx(26 / 3))


def test_flips_are_drawn_where_there_are_too_many_to_count() -> None:
    primes = [97, 101, 103, 107, 109, 113, 127, 131]
    first = make_questions([p // 2 for p in primes], primes)
    second = make_questions([p // 3 for p in primes], primes)
    found = compare_questions(first, second)
    assert found is not None
    assert found.test == "sign flips, 100,000 drawn"
    assert found.p_value == pytest.approx(2 / 2**8, rel=0.2)  # all differences have one sign


def test_the_questions_themselves_can_be_too_few() -> None:
    """The models are good at different questions: no number of samples changes that."""
    found = compare([16] * 16 + [0] * 14, [0] * 15 + [16] * 14 + [0], 16)
    assert found.spread.known
    assert found.spread.within == pytest.approx(0.0)
    assert found.needed.samples is None
    assert found.needed.questions is not None
    assert found.needed.questions > 30


def test_variance_is_split_without_bias() -> None:
    generator = np.random.default_rng(3)
    p, q = generator.beta(2, 3, size=4000), generator.beta(2, 3, size=4000)
    k = 4
    first = make_questions(generator.binomial(k, p).tolist(), k)
    second = make_questions(generator.binomial(k, q).tolist(), k)
    found = compare_questions(first, second, resamples=100)
    assert found is not None
    assert found.spread.between == pytest.approx((p - q).var(), rel=0.05)
    assert found.spread.within == pytest.approx((p * (1 - p) + q * (1 - q)).mean(), rel=0.05)


def test_the_samples_needed_have_the_power() -> None:
    """Drawn again with so many samples, 8 of 10 comparisons exceed 1.96 standard errors."""
    generator = np.random.default_rng(4)
    p = generator.beta(2, 2, size=100)
    q = np.clip(p - 0.04, 0, 1)
    difference = float((p - q).mean())
    within = float((p * (1 - p) + q * (1 - q)).mean())
    between = float((p - q).var(ddof=1))
    needed = find_needed(difference, [Spread(100, 0.0, between, within, known=True)]).samples
    assert needed is not None
    draws = (
        generator.binomial(needed, p, size=(4000, 100)) - generator.binomial(needed, q, size=(4000, 100))
    ) / needed
    errors = draws.std(axis=1, ddof=1) / 10
    assert float((draws.mean(axis=1) / errors > 1.96).mean()) == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("size", [30, 198])
def test_newcombe_covers_the_true_difference(size: int) -> None:
    generator = np.random.default_rng(size)
    p = generator.beta(1, 2, size=size)
    q = np.clip(p + 0.05, 0, 1)
    true = float((q - p).mean())
    hits = 0
    for _ in range(500):
        first, second = generator.random(size) < q, generator.random(size) < p
        counts = (first & second, first & ~second, ~first & second, ~first & ~second)
        interval = compute_paired_interval(*(float(part.sum()) for part in counts))
        hits += interval.low <= true <= interval.high
    assert hits / 500 > 0.93


def test_overall_is_the_mean_of_the_tasks() -> None:
    parts = [
        compare([1] * 7 + [0] * 23, [0] + [1] * 6 + [0] * 23),
        compare([1] * 80 + [0] * 20, [1] * 60 + [0] * 40),
    ]
    overall = combine_differences(parts)
    assert overall.difference.value == pytest.approx((1 / 30 + 0.2) / 2)
    assert overall.scores[0] == pytest.approx((7 / 30 + 0.8) / 2)
    assert overall.questions == 130
    excludes = overall.difference.low > 0
    assert excludes == (overall.p_value < 0.05) == overall.separated
    assert combine_differences(parts[:1]).needed == parts[0].needed
    assert combine_differences([compare([1, 0], [1, 0])]).p_value == 1.0
