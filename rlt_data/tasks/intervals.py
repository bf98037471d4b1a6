"""Intervals of means: Wilson's for shares, and bootstraps over questions.

A question is the unit: several samples of one question are not independent of each other, so they are
averaged first, and intervals come from the spread of these means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 0

_DIGITS = 12
_CHUNK_CELLS = 4_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate with the two ends of its interval; `method` names how they were computed."""

    value: float
    low: float
    high: float
    method: str


def find_normal_quantile(confidence: float = CONFIDENCE) -> float:
    """Return how many standard errors a two-sided interval reaches: 1.96 for 0.95."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def find_student_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """Return how far a two-sided interval of Student's distribution reaches: 2.045 for 29 degrees and 0.95.

    Exact for 1 and 2 degrees of freedom, else Fisher's expansion: to 0.3% for 3, and closer for more.
    """
    tail = 0.5 + confidence / 2
    if freedom == 1:
        return math.tan(math.pi * (tail - 0.5))
    if freedom == 2:
        return (2 * tail - 1) * math.sqrt(2 / (4 * tail * (1 - tail)))
    z = find_normal_quantile(confidence)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92_160,
    )
    return math.fsum(term / float(freedom) ** power for power, term in enumerate(terms))


def compute_wilson_interval(correct: float, total: int, *, confidence: float = CONFIDENCE) -> Interval:
    """Compute Wilson's interval of the share `correct / total`.

    `correct` may be fractional: the sum of the scores of `total` questions.
    Raises `ValueError` unless `total` is positive and `correct` is from 0 to `total`.
    """
    if total < 1 or not -1e-9 <= correct <= total + 1e-9:
        raise ValueError(f"{correct} of {total} is not a share")
    share = min(max(correct / total, 0.0), 1.0)
    z2 = find_normal_quantile(confidence) ** 2
    center = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = math.sqrt(z2 * (share * (1 - share) / total + z2 / (4 * total**2))) / (1 + z2 / total)
    # Rounding must not move the ends past the share itself.
    return Interval(share, min(max(center - half, 0.0), share), max(min(center + half, 1.0), share), "wilson")


def compute_bootstrap_interval(
    means: npt.ArrayLike,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Compute the percentile interval of the mean of `means`, one value a question, by resampling questions.

    Percentiles are too narrow for few questions (85 of 100 intervals of five questions contain the truth), so
    they are moved away from the mean as Student's distribution is wider than the normal one, within `bounds`.
    Questions with equal values are interchangeable, so a resample is a draw of how often each distinct value
    occurs. The result depends on the seed, and not on the order of the questions.
    Raises `ValueError` where there are no questions.
    """
    rounded: npt.NDArray[np.float64] = np.asarray(means, dtype=np.float64).round(_DIGITS)
    values, counts = np.unique(rounded, return_counts=True)
    total = int(counts.sum())
    if total == 0:
        raise ValueError("there are no questions to resample")
    mean = float(values @ counts) / total
    draws = _draw_means(values, counts, resamples, seed)
    tail = (1 - confidence) / 2
    low, high = (float(end) for end in np.quantile(draws, [tail, 1 - tail]))
    wider = 1.0
    if total > 1:
        quantiles = find_student_quantile(total - 1, confidence), find_normal_quantile(confidence)
        wider = math.sqrt(total / (total - 1)) * quantiles[0] / quantiles[1]
    below, above = wider * max(mean - low, 0.0), wider * max(high - mean, 0.0)
    low, high = max(mean - below, min(bounds[0], mean)), min(mean + above, max(bounds[1], mean))
    return Interval(mean, low, high, "bootstrap over questions")


def _draw_means(
    values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], resamples: int, seed: int
) -> npt.NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    total = int(counts.sum())
    draws = np.empty(resamples)
    step = max(1, _CHUNK_CELLS // len(values))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        draws[start : start + size] = generator.multinomial(total, counts / total, size=size) @ values / total
    return draws


def compute_mean_interval(
    means: npt.ArrayLike,
    samples: int,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Interval:
    """Compute the interval of a score: the mean of `means`, from 0 to 1, one value a question.

    `samples` is the largest number of samples of a question. With one, it is Wilson's interval. With several,
    it is a bootstrap over questions, except where all questions have the same value: resampling would then
    give an interval without width, so it is Wilson's interval of that many questions.
    Raises `ValueError` where there are no questions.
    """
    values = np.asarray(means, dtype=np.float64)
    if samples == 1 or (len(values) > 0 and np.ptp(values) < 10.0**-_DIGITS):
        return compute_wilson_interval(float(values.sum()), len(values), confidence=confidence)
    return compute_bootstrap_interval(values, confidence=confidence, resamples=resamples, seed=seed)


def combine_intervals(intervals: Sequence[Interval]) -> Interval:
    """Return the mean of independent estimates; the distances to their ends are added as squares.

    Raises `ValueError` where there are none.
    """
    if not intervals:
        raise ValueError("there are no intervals to combine")
    number = len(intervals)
    value = math.fsum(interval.value for interval in intervals) / number
    below = math.hypot(*(interval.value - interval.low for interval in intervals)) / number
    above = math.hypot(*(interval.high - interval.value for interval in intervals)) / number
    return Interval(value, value - below, value + above, "propagated over tasks")
