"""Paired comparison of two models on the same questions.

The unit is the question: its difference is the mean score of one model minus that of the other. Where there
is one sample a question, the interval is Newcombe's for paired shares, and the sign-flip test is McNemar's
exact test; with several, the interval is a bootstrap over questions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import polars as pl

from rlt_data.tasks.intervals import (
    Interval,
    combine_intervals,
    compute_bootstrap_interval,
    compute_wilson_interval,
    find_normal_quantile,
)

POWER = 0.8
SIGNIFICANCE = 0.05

_LARGEST_SUM = 200_000
_FLIPS = 100_000
_TIED = 1e-9
_MOST_SAMPLES = 10**12

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """The variance of a per-question difference: `between` questions, and `within` them for one sample each.

    With k samples a question the variance of one question's difference is `between + within / k`. `total` is
    the observed one, at the present numbers of samples. `known` is False where a model has one sample a
    question: the parts cannot be told apart, and `between` is taken as 0.
    """

    questions: int
    total: float
    between: float
    within: float
    known: bool


@dataclass(frozen=True)
class Needed:
    """What would tell a difference of the observed size apart with power 0.8, at 95%.

    `samples` a question, of both models; None where the questions are too few for any number of samples, or
    there is no difference. `at_least` is True where `samples` is only a lower bound. `questions` at the
    present number of samples; None where there is no difference.
    """

    samples: int | None
    at_least: bool
    questions: int | None


@dataclass(frozen=True)
class PairedDifference:
    """The difference of two models, `model` minus `baseline`, on the `questions` that both have.

    `only_model` and `only_baseline` count the questions that were left out. Scores are means over the common
    questions. `separated`: the 95% interval excludes 0, and the p-value is below 0.05.
    """

    questions: int
    only_model: int
    only_baseline: int
    samples: tuple[float, float]
    scores: tuple[float, float]
    difference: Interval
    p_value: float
    test: str
    needed: Needed
    spread: Spread

    @property
    def separated(self) -> bool:
        """Whether the data tell the two models apart."""
        excludes = self.difference.low > 0 or self.difference.high < 0
        return excludes and self.p_value < SIGNIFICANCE


def compare_questions(
    model: pl.DataFrame, baseline: pl.DataFrame, *, resamples: int = 10_000, seed: int = 0
) -> PairedDifference | None:
    """Compare two models, each a frame of `score_questions`; None where they have no question in common.

    The result does not depend on the order of the rows.
    """
    both = model.join(baseline, on="question_id", suffix="_baseline").sort("question_id")
    if both.is_empty():
        return None
    samples = [both.get_column(name).to_numpy() for name in ("samples", "samples_baseline")]
    correct = [both.get_column(name).to_numpy() for name in ("correct", "correct_baseline")]
    means = [right / number for right, number in zip(correct, samples, strict=True)]
    difference = _find_interval(means[0], means[1], max(int(s.max()) for s in samples), resamples, seed)
    p_value, test = _test_signs(samples, correct, seed)
    spread = _split_variance(samples, means)
    return PairedDifference(
        questions=both.height,
        only_model=model.height - both.height,
        only_baseline=baseline.height - both.height,
        samples=(float(samples[0].mean()), float(samples[1].mean())),
        scores=(float(means[0].mean()), float(means[1].mean())),
        difference=difference,
        p_value=p_value,
        test=test,
        needed=find_needed(difference.value, [spread]),
        spread=spread,
    )


def combine_differences(parts: Sequence[PairedDifference]) -> PairedDifference:
    """Return the mean difference over tasks, with its interval propagated from those of the tasks.

    Its p-value is that of a normal distribution whose standard error is the interval's side towards 0,
    divided by 1.96. Raises `ValueError` where there are no tasks.
    """
    difference = combine_intervals([part.difference for part in parts])
    side = difference.value - (difference.low if difference.value > 0 else difference.high)
    number = len(parts)
    if difference.value == 0 or side == 0:
        p_value = 1.0
    else:
        p_value = 2 * NormalDist().cdf(-abs(difference.value / side) * find_normal_quantile())
    return PairedDifference(
        questions=sum(part.questions for part in parts),
        only_model=sum(part.only_model for part in parts),
        only_baseline=sum(part.only_baseline for part in parts),
        samples=(
            math.fsum(part.samples[0] for part in parts) / number,
            math.fsum(part.samples[1] for part in parts) / number,
        ),
        scores=(
            math.fsum(part.scores[0] for part in parts) / number,
            math.fsum(part.scores[1] for part in parts) / number,
        ),
        difference=difference,
        p_value=p_value,
        test="normal",
        needed=find_needed(difference.value, [part.spread for part in parts]),
        spread=parts[0].spread,
    )


def find_needed(difference: float, spreads: Sequence[Spread]) -> Needed:
    """Find how many samples, or questions, would tell `difference`, a mean over tasks, apart.

    The standard error of the mean must be at most |difference| / (1.96 + 0.84).
    """
    at_least = not all(spread.known for spread in spreads)
    reach = find_normal_quantile() + NormalDist().inv_cdf(POWER)
    allowed = (len(spreads) * difference / reach) ** 2
    if abs(difference) < _TIED or any(spread.questions < 2 for spread in spreads):
        return Needed(None, at_least, None)
    within = math.fsum(spread.within / spread.questions for spread in spreads)
    between = math.fsum(spread.between / spread.questions for spread in spreads)
    total = math.fsum(spread.total / spread.questions for spread in spreads)
    questions = sum(spread.questions for spread in spreads)
    samples = None
    if allowed > between:
        needed = math.ceil(within / (allowed - between) - _TIED)
        samples = max(1, needed) if needed <= _MOST_SAMPLES else None
    return Needed(samples, at_least, max(2, math.ceil(questions * total / allowed - _TIED)))


def compute_paired_interval(both: float, model: float, baseline: float, neither: float) -> Interval:
    """Compute Newcombe's interval of the difference of two paired shares (1998, method 10).

    The arguments count the questions that both got right, only the model, only the baseline, and neither.
    """
    total = round(both + model + baseline + neither)
    first = compute_wilson_interval(both + model, total)
    second = compute_wilson_interval(both + baseline, total)
    product = (both + model) * (baseline + neither) * (both + baseline) * (model + neither)
    agreement = both * neither - model * baseline
    if agreement > 0:
        agreement = max(agreement - total / 2, 0.0)
    correlation = agreement / math.sqrt(product) if product else 0.0
    return _subtract_intervals(first, second, correlation, "newcombe")


def _subtract_intervals(first: Interval, second: Interval, correlation: float, method: str) -> Interval:
    value = first.value - second.value

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))

    low = value - reach(first.value - first.low, second.high - second.value)
    high = value + reach(first.high - first.value, second.value - second.low)
    return Interval(value, max(low, -1.0), min(high, 1.0), method)


def _find_interval(first: Floats, second: Floats, most: int, resamples: int, seed: int) -> Interval:
    difference = first - second
    if most == 1:
        both, neither = (first * second).sum(), ((1 - first) * (1 - second)).sum()
        return compute_paired_interval(
            float(both), float((difference > 0).sum()), float((difference < 0).sum()), float(neither)
        )
    if np.ptp(difference) < _TIED:
        # Resampling would give an interval without width.
        scores = [compute_wilson_interval(float(means.sum()), len(means)) for means in (first, second)]
        return _subtract_intervals(scores[0], scores[1], 0.0, "wilson, as of independent scores")
    return compute_bootstrap_interval(difference, resamples=resamples, seed=seed, bounds=(-1.0, 1.0))


def _test_signs(
    samples: Sequence[npt.NDArray[np.int64]], correct: Sequence[npt.NDArray[np.int64]], seed: int
) -> tuple[float, str]:
    """Return the two-sided p-value of the sign-flip test, and its name.

    If the models were equal, each question's difference would be as likely with the other sign. All
    combinations of signs are counted, by the characteristic function of their sum, where the differences are
    multiples of a common fraction that is not too small; else some are drawn.
    """
    one_sample = max(int(numbers.max()) for numbers in samples) == 1
    common = math.lcm(*np.unique(np.concatenate(list(samples))).tolist())
    if common <= _LARGEST_SUM:
        scaled = correct[0] * (common // samples[0]) - correct[1] * (common // samples[1])
        sizes, counts = np.unique(np.abs(scaled[scaled != 0]), return_counts=True)
        if (sizes * counts).sum() <= _LARGEST_SUM:
            name = "mcnemar, exact" if one_sample else "sign flips, exact"
            return _count_flips(sizes, counts, abs(int(scaled.sum()))), name
    difference = (correct[0] / samples[0] - correct[1] / samples[1]).round(12)
    sizes, counts = np.unique(np.abs(difference[difference != 0]), return_counts=True)
    generator = np.random.default_rng(seed)
    sums = np.zeros(_FLIPS)
    for size, count in zip(sizes, counts, strict=True):
        sums += size * (2 * generator.binomial(count, 0.5, _FLIPS) - count)
    extreme = int((np.abs(sums) >= abs(difference.sum()) - _TIED).sum())
    return (1 + extreme) / (1 + _FLIPS), f"sign flips, {_FLIPS:,} drawn"


def _count_flips(sizes: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], observed: int) -> float:
    """Return the probability that the sum of `sizes`, each `counts` times with a random sign, is as far."""
    if observed == 0:
        return 1.0
    largest = int((sizes * counts).sum())
    length = 2 * largest + 1
    angles = 2 * np.pi * np.arange(length) / length
    characteristic = np.ones(length)
    for size, count in zip(sizes, counts, strict=True):
        characteristic *= np.cos(size * angles) ** count
    probabilities = np.fft.ifft(characteristic).real
    upper = float(probabilities[observed : largest + 1].sum())
    # The most extreme combination, all signs equal, bounds it from below.
    return min(1.0, max(2 * upper, 2.0 ** (1 - int(counts.sum()))))


def _split_variance(samples: Sequence[npt.NDArray[np.int64]], means: Sequence[Floats]) -> Spread:
    """Estimate the parts of the variance of the per-question difference, without bias but never below 0."""
    difference = means[0] - means[1]
    number = len(difference)
    total = float(difference.var(ddof=1)) if number > 1 else 0.0
    within, noise = 0.0, 0.0
    for numbers, scores in zip(samples, means, strict=True):
        several = numbers > 1
        if not several.any():
            return Spread(number, total, 0.0, total, known=False)
        k = numbers[several]
        variance = float((scores[several] * (1 - scores[several]) * k / (k - 1)).mean())
        within += variance
        noise += variance * float((1 / numbers).mean())
    return Spread(number, total, max(0.0, total - noise), within, known=True)
