"""Teacher log-probabilities from the engine that sampled an explanation, where they are the same quantity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from rlt_data.formats.definition import ConversationFormat
from rlt_data.reward.scoring.scorer import FailedScore, TokenScores
from rlt_data.reward.scoring.texts import (
    ScoreRequest,
    ScoringText,
    build_student_texts,
    build_teacher_texts,
)


@dataclass(frozen=True)
class SampledTokens:
    """What an engine sampled: token ids of the completion, and the log-probability of each, nats."""

    token_ids: Sequence[int]
    logprobs: Sequence[float]


class StudentScorer(Protocol):
    """A scorer of students without a teacher."""

    def score(self, requests: Sequence[ScoreRequest], /) -> Iterator[TokenScores | FailedScore]:
        """Score requests; yield one result or failure per request and student."""


def find_reusable(
    format: ConversationFormat,
    teacher_tokenizer: Any,
    student_tokenizers: Sequence[Any],
    requests: Sequence[ScoreRequest],
    sampled: Mapping[str, SampledTokens],
) -> dict[str, list[float]]:
    """Return the sampled log-probabilities of each explanation's tokens, nats, by the key of its request.

    Only requests for which the rendered texts of teacher and students split the explanation into exactly the
    sampled tokens are included. The caller checks that temperature, weights and mode are the teacher's.
    """
    candidates = [request for request in requests if request.key in sampled]
    teacher_texts = build_teacher_texts(format, teacher_tokenizer, candidates)
    student_texts = [build_student_texts(format, tokenizer, candidates) for tokenizer in student_tokenizers]
    reusable = {}
    for index, (request, text) in enumerate(zip(candidates, teacher_texts, strict=True)):
        if not isinstance(text, ScoringText):
            continue
        ids = text.think_ids
        tokens = sampled[request.key]
        alike = all(_read_think_ids(texts[index]) == ids for texts in student_texts)
        if alike and list(tokens.token_ids[: len(ids)]) == ids and len(tokens.logprobs) >= len(ids):
            reusable[request.key] = [float(value) for value in tokens.logprobs[: len(ids)]]
    return reusable


def split_reusable(
    requests: Sequence[ScoreRequest], reusable: Mapping[str, list[float]]
) -> tuple[list[ScoreRequest], list[ScoreRequest]]:
    """Split requests into those with reusable teacher log-probabilities and those that need the teacher."""
    return (
        [request for request in requests if request.key in reusable],
        [request for request in requests if request.key not in reusable],
    )


def score_reusable(
    scorer: StudentScorer, requests: Sequence[ScoreRequest], reusable: Mapping[str, list[float]]
) -> Iterator[TokenScores | FailedScore]:
    """Score with students alone and add the reusable teacher log-probabilities to their results."""
    for result in scorer.score(requests):
        if isinstance(result, FailedScore):
            yield result
        else:
            yield replace(result, think_teacher=reusable[result.key])


def _read_think_ids(text: object) -> list[int] | None:
    return text.think_ids if isinstance(text, ScoringText) else None
