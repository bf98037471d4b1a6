"""Rewards in memory: texts in, reward parts out, through the same scorer and formulae as the stages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Literal, assert_never

import polars as pl

from rlt_data.reward.backends.prompt_scorer import PromptScorer
from rlt_data.reward.derive import PART_COLUMNS, REWARD_COLUMN_NAMES, derive_reward
from rlt_data.reward.scoring.scorer import FailedScore, Scorer, TokenScores
from rlt_data.reward.scoring.texts import FailedText, ScoreRequest
from rlt_data.reward.settings import RewardSettings

Combine = Literal["mean", "minimum"]
"""How the rewards of several students are combined: their mean, or the lowest."""

_REALS = pl.List(pl.Float32)
_SCORED: dict[str, pl.DataType] = {
    "solution_logprobs": _REALS,
    "think_student_logprobs": _REALS,
    "think_teacher_logprobs": _REALS,
    "think_divergences": _REALS,
    "closed": pl.Boolean(),
}


@dataclass(frozen=True)
class RewardParts:
    """The reward columns of `schemas.REWARD_COLUMNS` for one explanation and one student."""

    estimator: str
    alpha: float
    lambda_kl: float
    solution_logprob_avg: float
    solution_logprob_min: float
    kl_avg: float | None
    kl_max: float | None
    format_penalty: float
    r_ss: float
    r_kl: float | None
    reward: float | None


@dataclass(frozen=True)
class TextReward:
    """The reward of one explanation by one student: parts and token scores, or the failure."""

    key: str
    student: str | None
    parts: RewardParts | None
    scores: TokenScores | None
    failure: FailedText | None


def derive_parts(scores: Iterable[TokenScores], settings: RewardSettings) -> list[RewardParts]:
    """Derive rewards from token scores, in the same order."""
    rows = [{name: score.as_row()[name] for name in _SCORED} for score in scores]
    frame = pl.DataFrame(rows, schema=_SCORED).select(derive_reward(settings))
    return [RewardParts(**row) for row in frame.select(REWARD_COLUMN_NAMES).iter_rows(named=True)]


def combine_parts(parts: Sequence[RewardParts], how: Combine) -> RewardParts:
    """Combine the rewards of one explanation by one or several students under the same settings.

    `mean` takes the mean of every part over the students that have it; `minimum` takes all parts of the
    student with the lowest reward, or of one without a reward.
    """
    match how:
        case "minimum":
            return min(parts, key=lambda part: float("-inf") if part.reward is None else part.reward)
        case "mean":
            means = {}
            for name in PART_COLUMNS:
                values = [value for part in parts if (value := getattr(part, name)) is not None]
                means[name] = fmean(values) if values else None
            return RewardParts(**(asdict(parts[0]) | means))
        case _:
            assert_never(how)


def score_texts(
    scorer: Scorer | PromptScorer, requests: Iterable[ScoreRequest], settings: RewardSettings | None = None
) -> list[TextReward]:
    """Score explanations without a lake: for each request, one result a student.

    `settings` defaults to the paper's. The estimator `full` needs a scorer made with `exact=True`; without
    a teacher the reward is None unless `lambda_kl` is 0.
    """
    results = list(scorer.score(requests))
    scored = [result for result in results if isinstance(result, TokenScores)]
    parts = iter(derive_parts(scored, settings or RewardSettings()))
    rewards = []
    for result in results:
        if isinstance(result, FailedScore):
            failure = result.failure
            rewards.append(TextReward(failure.key, result.student, None, None, failure))
        else:
            rewards.append(TextReward(result.key, result.student, next(parts), result, None))
    return rewards
