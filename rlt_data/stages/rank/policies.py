"""Selection policies: which traces of each question are kept, by their place in a ranking."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import polars as pl

from rlt_data.errors import UsageError
from rlt_data.hashing import hash_content

Kind = Literal["all", "best-of-n", "top-quantile", "threshold", "random"]

FORMS = (
    "all, best-of-n(1), top-quantile(0.25), top-quantile(0.25, corpus), threshold(-5.0), random(1), "
    "random(1, seed=7)"
)
_CALL = re.compile(r"\s*(?P<kind>[a-z-]+)\s*(?:\((?P<arguments>[^()]*)\))?\s*")


@dataclass(frozen=True)
class Policy:
    """One policy with its numbers; made by `parse_policy`.

    `number` is n, the quantile or the threshold. `corpus` makes a quantile one of all of a student's
    traces, not of each question's. `seed` decides the order of `random`.
    """

    kind: Kind
    number: float = 0.0
    corpus: bool = False
    seed: int = 0

    @property
    def needs_rewards(self) -> bool:
        """Whether traces without a reward cannot take part."""
        return self.kind != "random"

    @property
    def compares_questions(self) -> bool:
        """Whether rewards of different questions are compared with each other."""
        return self.kind == "threshold" or self.corpus

    def __str__(self) -> str:
        match self.kind:
            case "all":
                return "all"
            case "best-of-n":
                return f"best-of-n({int(self.number)})"
            case "top-quantile":
                return f"top-quantile({_write_number(self.number)}{', corpus' if self.corpus else ''})"
            case "threshold":
                return f"threshold({_write_number(self.number)})"
            case "random":
                return f"random({int(self.number)}, seed={self.seed})"


def parse_policy(text: str) -> Policy:
    """Read a policy such as `best-of-n(4)`. Raises `UsageError` with the known forms."""
    called = _CALL.fullmatch(text)
    kind = called["kind"] if called else ""
    arguments = [part.strip() for part in (called["arguments"] or "").split(",")] if called else []
    arguments = [part for part in arguments if part]
    reader = _READERS.get(kind)
    if reader is None:
        raise _explain(text, "there is no such policy")
    try:
        return reader(arguments)
    except (ValueError, IndexError) as error:
        raise _explain(text, str(error) or "a number is missing") from None


def rank_traces(frame: pl.DataFrame, policy: Policy) -> pl.DataFrame:
    """Rank the traces of each question by each student and mark those that `policy` keeps.

    `frame` has `student`, `question_id`, `trace_id` and `reward` (nats; null only under `random`) and any
    other columns. Added are `rank` (1 is best; equal rewards in the order of trace_id), `group_size`,
    `selected`, and `group_mean`, `group_std` (of the population) and `group_spread` of the rewards.
    The result does not depend on the order of the rows.
    """
    group = ["student", "question_id"]
    order = ["reward", "trace_id"]
    descending = [True, False]
    if policy.kind == "random":
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
    return ranked.with_columns(_select(policy).alias("selected")).drop("_draw", strict=False)


def _select(policy: Policy) -> pl.Expr:
    match policy.kind:
        case "all":
            return pl.lit(True)
        case "best-of-n" | "random":
            return pl.col("rank") <= int(policy.number)
        case "threshold":
            return pl.col("reward") >= policy.number
        case "top-quantile" if policy.corpus:
            place = pl.struct(-pl.col("reward"), "trace_id").rank("ordinal").over("student")
            return place <= _count_share(pl.len().over("student"), policy.number)
        case _:
            return pl.col("rank") <= _count_share(pl.col("group_size"), policy.number)


def _count_share(size: pl.Expr, share: float) -> pl.Expr:
    # Rounded first: 0.1 * 30 is a little more than 3 in floating point, and its ceiling would be 4.
    return (size.cast(pl.Float64) * share).round(9).ceil().cast(pl.Int64)


def _read_all(arguments: list[str]) -> Policy:
    if arguments:
        raise ValueError("all takes no number")
    return Policy("all")


def _read_best(arguments: list[str]) -> Policy:
    (number,) = arguments
    return Policy("best-of-n", _read_count(number))


def _read_quantile(arguments: list[str]) -> Policy:
    share = float(arguments[0])
    scope = arguments[1] if len(arguments) > 1 else "question"
    if not 0 < share <= 1:
        raise ValueError("the share must be above 0 and at most 1")
    if scope not in ("question", "corpus") or len(arguments) > 2:
        raise ValueError("a quantile is taken within each `question` or over the `corpus`")
    return Policy("top-quantile", share, corpus=scope == "corpus")


def _read_threshold(arguments: list[str]) -> Policy:
    (number,) = arguments
    threshold = float(number)
    if math.isnan(threshold):
        raise ValueError("nothing is above or below what is no number")
    return Policy("threshold", threshold)


def _read_random(arguments: list[str]) -> Policy:
    seed = arguments[1].removeprefix("seed").lstrip(" =") if len(arguments) > 1 else "0"
    if len(arguments) > 2:
        raise ValueError("random takes a number and a seed")
    return Policy("random", _read_count(arguments[0]), seed=int(seed))


def _read_count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("the number must be at least 1")
    return number


def _write_number(number: float) -> str:
    """Write a number with every digit that tells it from its neighbours, and none that says nothing."""
    return repr(number).removesuffix(".0")


def _explain(text: str, what: str) -> UsageError:
    return UsageError(f"{text!r} is no selection policy: {what}", remedy=f"write one of: {FORMS}")


_READERS: dict[str, Callable[[list[str]], Policy]] = {
    "all": _read_all,
    "best-of-n": _read_best,
    "top-quantile": _read_quantile,
    "threshold": _read_threshold,
    "random": _read_random,
}
