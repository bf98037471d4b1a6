"""Estimators of the per-token divergence of teacher from student: everything that differs between them.

To add one: its name in `Estimator` and its entry in `ESTIMATORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import polars as pl

Estimator = Literal["k1", "k3", "full"]


@dataclass(frozen=True)
class EstimatorDefinition:
    """One estimator.

    `columns` are the list columns of `scores` that it needs; `compute` takes them in that order as float64
    list expressions (nats) and returns the divergence of each token. `exact`: scoring must store the exact
    divergence, which takes the whole distributions of both models.
    """

    summary: str
    columns: tuple[str, ...]
    compute: Callable[..., pl.Expr]
    exact: bool = False


def compute_k1(teacher: pl.Expr, student: pl.Expr) -> pl.Expr:
    """log p_T - log p_S of the sampled token."""
    return teacher - student


def compute_k3(teacher: pl.Expr, student: pl.Expr) -> pl.Expr:
    """exp(d) - 1 - d with d = log p_S - log p_T: never negative, same expectation under the teacher."""
    import polars as pl

    element = pl.element()
    # Where the models nearly agree, rounding would make it negative.
    return (student - teacher).list.eval((element.exp() - 1.0 - element).clip(lower_bound=0.0))


def use_stored(divergences: pl.Expr) -> pl.Expr:
    """The exact KL(teacher || student), as scoring stored it."""
    return divergences


_LOGPROBS = ("think_teacher_logprobs", "think_student_logprobs")

ESTIMATORS: Mapping[Estimator, EstimatorDefinition] = {
    "k1": EstimatorDefinition("sampled log-ratio, the paper's", _LOGPROBS, compute_k1),
    "k3": EstimatorDefinition("non-negative, low variance", _LOGPROBS, compute_k3),
    "full": EstimatorDefinition(
        "exact, over the whole vocabulary; scoring must have stored it",
        ("think_divergences",),
        use_stored,
        exact=True,
    ),
}

RANKING_ORDER: tuple[Estimator, ...] = ("full", "k1")
"""The estimators among which ranking with `auto` chooses, most accurate first."""


def list_estimators(*, exact: bool) -> str:
    """Write the names of the estimators that need the exact divergence, or that do not: `k1 or k3`."""
    return " or ".join(name for name, definition in ESTIMATORS.items() if definition.exact == exact)
