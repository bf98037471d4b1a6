"""Selection policies: which traces of each question are kept, by their rank.

To add one: its name in `Kind` and its entry in `POLICIES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import polars as pl

from rlt_data.errors import UsageError
from rlt_data.hashing import hash_content

Kind = Literal["all", "best-of-n", "top-quantile", "threshold", "random"]

MOST_THRESHOLD = 10**12
MOST_TRACES = 10**9

_CALL = re.compile(r"\s*(?P<kind>[a-z-]+)\s*(?:\((?P<arguments>[^()]*)\))?\s*")


@dataclass(frozen=True)
class Policy:
    """One policy with its numbers; made by `parse_policy`.

    `number` is n, the quantile or the threshold. `corpus` takes a quantile over all of a student's traces
    instead of each question's. `seed` decides the order of `random`.
    """

    kind: Kind
    number: float = 0.0
    corpus: bool = False
    seed: int = 0

    @property
    def needs_rewards(self) -> bool:
        """Whether traces without a reward cannot be selected."""
        return POLICIES[self.kind].needs_rewards

    @property
    def compares_questions(self) -> bool:
        """Whether rewards of different questions are compared with each other."""
        return POLICIES[self.kind].compares_questions or self.corpus

    def __str__(self) -> str:
        return POLICIES[self.kind].write(self)


@dataclass(frozen=True)
class PolicyDefinition:
    """One kind of policy: how its arguments are read and written, and which ranked traces it selects.

    `read` takes the arguments and the default seed and raises `ValueError` for those that make no policy;
    `select` is a boolean expression over `rank`, `group_size`, `reward`, `student` and `trace_id`. A policy
    that `draws` ranks in a random order, decided by its seed, instead of by reward.
    """

    forms: str
    read: Callable[[list[str], int], Policy]
    write: Callable[[Policy], str]
    select: Callable[[Policy], pl.Expr]
    needs_rewards: bool = True
    compares_questions: bool = False
    draws: bool = False


def parse_policy(text: str, *, seed: int = 0) -> Policy:
    """Read a policy such as `best-of-n(4)`; `seed` is used by `random` where the text gives none.

    Raises `UsageError` with the forms that exist.
    """
    called = _CALL.fullmatch(text)
    kind = next((kind for kind in get_args(Kind) if called and called["kind"] == kind), None)
    if called is None or kind is None:
        raise _explain(text, "there is no such policy")
    arguments = [part.strip() for part in (called["arguments"] or "").split(",")]
    try:
        return POLICIES[kind].read([part for part in arguments if part], seed)
    except (ValueError, IndexError) as error:
        raise _explain(text, str(error) or "a number is missing") from None


def rank_traces(frame: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Rank the traces of each question by each student and mark those that `policy` selects.

    `frame` has `student`, `question_id`, `trace_id` and `reward` (nats; null only under `random`) and any
    other columns. Added are `rank` (1 is best; equal rewards in the order of trace_id), `group_size`,
    `selected`, and `group_mean`, `group_std` (of the population) and `group_spread` of the rewards.
    The result does not depend on the order of the rows.
    """
    group = ["student", "question_id"]
    order = ["reward", "trace_id"]
    descending = [True, False]
    if POLICIES[policy.kind].draws:
        draws = [hash_content("random", policy.seed, key) for key in frame.get_column("trace_id")]
        frame = frame.with_columns(pl.Series("_draw", draws, dtype=pl.String))
        order, descending = ["_draw", "trace_id"], [False, False]
    ranked = frame.sort([*group, *order], descending=[False, False, *descending], nulls_last=True)
    rewards = pl.col("reward")
    ranked = ranked.with_columns(
        pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over(group).alias("rank"),
        pl.len().over(group).cast(pl.Int32).alias("group_size"),
        rewards.mean().over(group).alias("group_mean"),
        rewards.std(ddof=0).over(group).alias("group_std"),
        (rewards.max() - rewards.min()).over(group).alias("group_spread"),
    )
    return ranked.with_columns(POLICIES[policy.kind].select(policy).alias("selected")).drop(
        "_draw", strict=False
    )


def _count_share(size: pl.Expr, share: float) -> pl.Expr:
    # Rounded first: 0.1 * 30 is a little more than 3 in floating point, and its ceiling would be 4.
    return (size.cast(pl.Float64) * share).round(9).ceil().cast(pl.Int64)


def _read_all(arguments: list[str], seed: int) -> Policy:
    if arguments:
        raise ValueError("all takes no number")
    return Policy("all")


def _read_best(arguments: list[str], seed: int) -> Policy:
    (number,) = arguments
    return Policy("best-of-n", _read_count(number))


def _select_best(policy: Policy) -> pl.Expr:
    return pl.col("rank") <= int(policy.number)


def _read_quantile(arguments: list[str], seed: int) -> Policy:
    share = float(arguments[0])
    scope = arguments[1] if len(arguments) > 1 else "question"
    if not 0 < share <= 1:
        raise ValueError("the share must be above 0 and at most 1")
    if scope not in ("question", "corpus") or len(arguments) > 2:
        raise ValueError("the scope of a quantile is question or corpus")
    return Policy("top-quantile", share, corpus=scope == "corpus")


def _select_quantile(policy: Policy) -> pl.Expr:
    if policy.corpus:
        position = pl.struct(-pl.col("reward"), "trace_id").rank("ordinal").over("student")
        return position <= _count_share(pl.len().over("student"), policy.number)
    return pl.col("rank") <= _count_share(pl.col("group_size"), policy.number)


def _read_threshold(arguments: list[str], seed: int) -> Policy:
    (number,) = arguments
    threshold = float(number)
    if not abs(threshold) <= MOST_THRESHOLD:
        raise ValueError(f"the threshold must be from -{MOST_THRESHOLD:,} to {MOST_THRESHOLD:,}")
    return Policy("threshold", threshold)


def _read_random(arguments: list[str], seed: int) -> Policy:
    if len(arguments) > 2:
        raise ValueError("random takes a number and a seed")
    if len(arguments) > 1:
        seed = int(arguments[1].removeprefix("seed").lstrip(" ="))
        if not -(2**63) <= seed < 2**63:
            raise ValueError("the seed must be an integer of 64 bits")
    return Policy("random", _read_count(arguments[0]), seed=seed)


def _read_count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST_TRACES:
        raise ValueError(f"the number must be from 1 to {MOST_TRACES:,}")
    return number


def _write_number(number: float) -> str:
    """Write a number with all of its significant digits, and no more."""
    return repr(number).removesuffix(".0")


def _explain(text: str, what: str) -> UsageError:
    forms = ", ".join(definition.forms for definition in POLICIES.values())
    return UsageError(f"{text!r} is not a selection policy: {what}", remedy=f"write one of: {forms}")


POLICIES: Mapping[Kind, PolicyDefinition] = {
    "all": PolicyDefinition("all", _read_all, lambda policy: "all", lambda policy: pl.lit(True)),
    "best-of-n": PolicyDefinition(
        "best-of-n(1)", _read_best, lambda policy: f"best-of-n({int(policy.number)})", _select_best
    ),
    "top-quantile": PolicyDefinition(
        "top-quantile(0.25), top-quantile(0.25, corpus)",
        _read_quantile,
        lambda policy: f"top-quantile({_write_number(policy.number)}{', corpus' if policy.corpus else ''})",
        _select_quantile,
    ),
    "threshold": PolicyDefinition(
        "threshold(-5.0)",
        _read_threshold,
        lambda policy: f"threshold({_write_number(policy.number)})",
        lambda policy: pl.col("reward") >= policy.number,
        compares_questions=True,
    ),
    "random": PolicyDefinition(
        "random(1), random(1, seed=7)",
        _read_random,
        lambda policy: f"random({int(policy.number)}, seed={policy.seed})",
        _select_best,
        needs_rewards=False,
        draws=True,
    ),
}
