"""The reward as Polars expressions over the list columns of token scores.

    r_ss   = avg(log pi_S(s_k)) + alpha * min(log pi_S(s_k))       over solution tokens
    r_kl   = avg(D_k) + alpha * max(D_k)                           over think tokens
    reward = r_ss - lambda_kl * r_kl + penalty where the trace never closed

Formulae: arXiv 2506.08388. No model is needed: any estimator, weight or clipping is computed from the
log-probabilities that scoring stored.
"""

from __future__ import annotations

import polars as pl

from rlt_data.reward.estimators import ESTIMATORS, Estimator
from rlt_data.reward.settings import RewardSettings

SETTING_COLUMNS = ("estimator", "alpha", "lambda_kl")
PART_COLUMNS = (
    "solution_logprob_avg",
    "solution_logprob_min",
    "kl_avg",
    "kl_max",
    "format_penalty",
    "r_ss",
    "r_kl",
    "reward",
)
REWARD_COLUMN_NAMES = (*SETTING_COLUMNS, *PART_COLUMNS)

_REALS = pl.List(pl.Float64)


def derive_divergence(estimator: Estimator) -> pl.Expr:
    """Per-token divergence of teacher from student as a list column, nats, float64.

    Null where a column that the estimator needs is null.
    """
    definition = ESTIMATORS[estimator]
    return definition.compute(*(pl.col(name).cast(_REALS) for name in definition.columns))


def find_underivable(settings: RewardSettings) -> pl.Expr:
    """Whether a score lacks a column that the reward under `settings` needs, boolean."""
    if settings.lambda_kl == 0:
        return pl.lit(False)
    columns = ESTIMATORS[settings.estimator].columns
    return pl.any_horizontal(pl.col(name).is_null() for name in columns)


def derive_reward(settings: RewardSettings) -> list[pl.Expr]:
    """Expressions for every reward column of `schemas.REWARD_COLUMNS`, in that order, float64.

    Inputs: `solution_logprobs`, `think_student_logprobs`, `think_teacher_logprobs`,
    `think_divergences` (lists, nats) and `closed` (null counts as closed): all columns of `scores`.

    An empty explanation has no divergence: kl_avg and kl_max are 0. Where the columns that the estimator
    needs were never stored, the kl columns are null, and so is the reward unless `lambda_kl` is 0.
    """
    solution = pl.col("solution_logprobs").cast(_REALS)
    if settings.clip_logprob is not None:
        solution = solution.list.eval(pl.element().clip(lower_bound=settings.clip_logprob))
    divergence = derive_divergence(settings.estimator)
    if settings.clip_kl is not None:
        divergence = divergence.list.eval(pl.element().clip(-settings.clip_kl, settings.clip_kl))
    stored = divergence.is_not_null()
    kl_avg = pl.when(stored).then(divergence.list.mean().fill_null(0.0))
    kl_max = pl.when(stored).then(divergence.list.max().fill_null(0.0))
    penalty = pl.when(pl.col("closed").fill_null(True)).then(0.0).otherwise(pl.lit(settings.penalty))
    r_ss = solution.list.mean() + settings.alpha * solution.list.min()
    r_kl = kl_avg + settings.alpha * kl_max
    reward = r_ss + penalty
    if settings.lambda_kl:
        reward = r_ss - settings.lambda_kl * r_kl + penalty
    return [
        pl.lit(settings.estimator).alias("estimator"),
        pl.lit(settings.alpha).alias("alpha"),
        pl.lit(settings.lambda_kl).alias("lambda_kl"),
        solution.list.mean().alias("solution_logprob_avg"),
        solution.list.min().alias("solution_logprob_min"),
        kl_avg.alias("kl_avg"),
        kl_max.alias("kl_max"),
        penalty.alias("format_penalty"),
        r_ss.alias("r_ss"),
        r_kl.alias("r_kl"),
        reward.alias("reward"),
    ]
