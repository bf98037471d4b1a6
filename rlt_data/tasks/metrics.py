"""Metrics of one model on one task, from graded completions.

The score of a completion is 1 where its verdict is `correct`, else 0. A question's score is the mean over its
samples, and a task's score (avg@k) is the mean over its questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from rlt_data.tasks.grading.base import Verdict
from rlt_data.tasks.intervals import Interval, compute_mean_interval
from rlt_data.tasks.options import LETTERS

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
UNANSWERED: tuple[Verdict, ...] = ("no_answer", "truncated", "unclosed_think")
"""Verdicts of completions in which no answer was found; they do not vote."""


@dataclass(frozen=True)
class PassAtK:
    """Unbiased pass@k over the questions with at least k samples; `left_out` counts the other questions.

    `value` is None where no question has k samples.
    """

    k: int
    value: float | None
    questions: int
    left_out: int


@dataclass(frozen=True)
class LetterShare:
    """One letter of multiple choice: how often it was chosen, and how often it was right.

    `chosen` and `right` are shares of all completions; `accuracy` is the score of the completions whose right
    option had this letter, None where there are none.
    """

    letter: str
    chosen: float
    right: float
    accuracy: float | None


@dataclass(frozen=True)
class TaskSummary:
    """The metrics of one model on one task.

    `samples` are the fewest and the most samples of a question, `k` the most. `score` is avg@k with its
    interval; `majority` is majority@k over all samples of each question. `low_bound` and `high_bound` are the
    score if every truncated completion were wrong, or right. `verdicts` counts completions by verdict, in the
    order of `VERDICTS`; those that do not occur are absent. `letters` is empty unless it is multiple choice.
    """

    questions: int
    completions: int
    samples: tuple[int, int]
    score: Interval
    pass_at: tuple[PassAtK, ...]
    majority: float
    verdicts: Mapping[Verdict, int]
    truncated: int
    low_bound: float
    high_bound: float
    completion_tokens: int | None = None
    engines: tuple[str, ...] = ()
    letters: tuple[LetterShare, ...] = field(default=())

    @property
    def k(self) -> int:
        """The largest number of samples of a question."""
        return self.samples[1]

    def count_verdict(self, verdict: Verdict) -> int:
        """Return the number of completions with this verdict."""
        return self.verdicts.get(verdict, 0)


def summarize_task(
    rows: pl.DataFrame, *, ks: Sequence[int] | None = None, resamples: int = 10_000, seed: int = 0
) -> TaskSummary:
    """Compute the metrics of one model on one task; `rows` has one row a completion, graded once.

    Columns: `question_id`, `sample_index`, `verdict`, `extracted_answer`, `truncated`; and where they exist
    `options` (list of texts, null unless multiple choice), `answer`, `completion_tokens` and `engine`.
    `ks` are those of pass@k: by default 1, 2, 4, ... and the largest number of samples. The order of the rows
    does not matter. Raises `ValueError` where there are no rows.
    """
    if rows.is_empty():
        raise ValueError("there are no completions to summarize")
    questions = score_questions(rows)
    fewest, most = (int(questions.get_column("samples").min()), int(questions.get_column("samples").max()))  # type: ignore[arg-type]
    score = compute_mean_interval(
        questions.get_column("score").to_numpy(), most, resamples=resamples, seed=seed
    )
    truncated = pl.col("truncated").fill_null(False)
    low, high = (
        float(_average(rows.with_columns(pl.when(truncated).then(fixed).otherwise(_score()).alias("_bound"))))
        for fixed in (0.0, 1.0)
    )
    counts = dict(rows.group_by("verdict").len().iter_rows())
    tokens = _take_column(rows, "completion_tokens")
    return TaskSummary(
        questions=questions.height,
        completions=rows.height,
        samples=(fewest, most),
        score=score,
        pass_at=compute_pass_at_k(questions, list_ks(most) if ks is None else ks),
        majority=compute_majority(rows),
        verdicts={verdict: counts[verdict] for verdict in VERDICTS if verdict in counts},
        truncated=int(rows.select(truncated.sum()).item()),
        low_bound=low,
        high_bound=high,
        completion_tokens=int(tokens.sum()) if len(tokens) else None,
        engines=tuple(_take_column(rows, "engine").unique().sort()),
        letters=share_letters(rows),
    )


def score_questions(rows: pl.DataFrame) -> pl.DataFrame:
    """Return one row a question, sorted: `question_id`, counts `samples` and `correct`, `score` (0 to 1)."""
    return (
        rows.group_by("question_id")
        .agg(pl.len().cast(pl.Int64).alias("samples"), _score().sum().cast(pl.Int64).alias("correct"))
        .with_columns((pl.col("correct") / pl.col("samples")).alias("score"))
        .sort("question_id")
    )


def list_ks(most: int) -> list[int]:
    """List the powers of two up to `most`, and `most`."""
    return sorted({2**power for power in range(most.bit_length())} | {most})


def compute_pass_at_k(questions: pl.DataFrame, ks: Sequence[int]) -> tuple[PassAtK, ...]:
    """Compute the unbiased pass@k (Chen et al., 2021) for each k of `ks`, from the rows of `score_questions`.

    For a question with n samples of which c are correct it is 1 - C(n - c, k) / C(n, k): the probability that
    k of these samples, drawn without replacement, contain a correct one. Each question's own n counts, never
    a configured one; a question with fewer than k samples is left out and counted.
    Raises `ValueError` for a k below 1.
    """
    found = []
    for k in ks:
        if k < 1:
            raise ValueError(f"pass@{k}: k should be at least 1")
        kinds = questions.filter(pl.col("samples") >= k).group_by("samples", "correct").len()
        kinds = kinds.sort("samples", "correct")
        samples, correct, counts = (
            kinds.get_column(name).to_numpy() for name in ("samples", "correct", "len")
        )
        enough = int(counts.sum())
        value = float((1 - _miss_probability(samples, correct, k)) @ counts) / enough if enough else None
        found.append(PassAtK(k, value, enough, questions.height - enough))
    return tuple(found)


def _miss_probability(
    samples: npt.NDArray[np.int64], correct: npt.NDArray[np.int64], k: int
) -> npt.NDArray[np.float64]:
    """Return the probability that k samples drawn without replacement are all wrong: C(n-c, k) / C(n, k)."""
    drawn = np.arange(k)
    # Where fewer than k are wrong, one factor is 0.
    factors = ((samples - correct)[:, None] - drawn) / (samples[:, None] - drawn)
    return np.asarray(factors.clip(0.0, 1.0).prod(axis=1))


def compute_majority(rows: pl.DataFrame) -> float:
    """Compute majority@k: each question's most frequent answer, and whether it is right.

    Completions vote with their extracted answer as it was written, in multiple choice with the text of the
    option (letters change their meaning from sample to sample). Those without an answer do not vote; a
    question without votes is wrong. Of several most frequent answers each counts by its share (the expected
    value of a fair draw), so the result does not depend on the order of samples.
    """
    total = rows.get_column("question_id").n_unique()
    votes = (
        rows.select("question_id", _vote(rows).alias("vote"), _score().alias("score"), "verdict")
        .filter(pl.col("vote").is_not_null() & ~pl.col("verdict").is_in(UNANSWERED))
        .group_by("question_id", "vote")
        .agg(pl.len().alias("votes"), pl.col("score").mean())
    )
    leading = votes.filter(pl.col("votes") == pl.col("votes").max().over("question_id"))
    right = leading.group_by("question_id").agg(pl.col("score").mean()).get_column("score").sort().sum()
    return float(right) / total


def _vote(rows: pl.DataFrame) -> pl.Expr:
    answer = pl.col("extracted_answer").str.strip_chars()
    if not _has_options(rows):
        return answer
    position = answer.replace_strict(list(LETTERS), range(len(LETTERS)), default=None, return_dtype=pl.Int64)
    chosen = pl.col("options").list.get(position, null_on_oob=True)
    return pl.when(pl.col("options").is_not_null()).then(pl.coalesce(chosen, answer)).otherwise(answer)


def share_letters(rows: pl.DataFrame) -> tuple[LetterShare, ...]:
    """Return for each letter of multiple choice how often it was chosen and was right; empty without options.

    Completions whose answer is not a letter of their options count in the total only.
    """
    if not _has_options(rows) or "answer" not in rows.columns:
        return ()
    asked = rows.filter(pl.col("options").list.len() > 0).with_columns(
        pl.col("extracted_answer").str.strip_chars().alias("_chosen"), pl.col("answer").str.strip_chars()
    )
    if asked.is_empty():
        return ()
    widest = int(asked.get_column("options").list.len().max())  # type: ignore[arg-type]
    shares = []
    for letter in LETTERS[:widest]:
        right = asked.filter(pl.col("answer") == letter)
        chosen = asked.filter(pl.col("_chosen") == letter).height
        accuracy = None if right.is_empty() else float(right.select(_score().mean()).item())
        shares.append(LetterShare(letter, chosen / asked.height, right.height / asked.height, accuracy))
    return tuple(shares)


def _take_column(rows: pl.DataFrame, name: str) -> pl.Series:
    """Return the values of a column without nulls; none where there is no such column."""
    return rows.get_column(name).drop_nulls() if name in rows.columns else pl.Series(name, [], pl.Null)


def _has_options(rows: pl.DataFrame) -> bool:
    return "options" in rows.columns and rows.schema["options"] != pl.Null


def _score() -> pl.Expr:
    return (pl.col("verdict") == "correct").cast(pl.Float64)


def _average(rows: pl.DataFrame) -> float:
    """Average the column `_bound` over samples, then over questions."""
    means = rows.group_by("question_id").agg(pl.col("_bound").mean()).get_column("_bound").sort()
    return float(means.mean())  # type: ignore[arg-type]
