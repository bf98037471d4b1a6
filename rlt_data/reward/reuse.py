"""The teacher's side from the engine that sampled the trace, where it is the very same quantity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

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


def find_reusable(
    format: ConversationFormat,
    teacher_tokenizer: Any,
    student_tokenizers: Sequence[Any],
    requests: Sequence[ScoreRequest],
    sampled: Mapping[str, SampledTokens],
) -> dict[str, list[float]]:
    """Log-probabilities of the explanation's tokens by request, where sampling left them.

    That asks that the sampled tokens are those into which the rendered texts of teacher and students cut
    the explanation; a request for which they are not is left out. Whether temperature, weights and mode
    are those of the teacher's side is for the caller to know.
    """
    known = [request for request in requests if request.key in sampled]
    teacher = build_teacher_texts(format, teacher_tokenizer, known)
    sides = [build_student_texts(format, tokenizer, known) for tokenizer in student_tokenizers]
    found = {}
    for place, (request, text) in enumerate(zip(known, teacher, strict=True)):
        if not isinstance(text, ScoringText):
            continue
        ids = text.think_ids
        own = sampled[request.key]
        alike = all(_read_think_ids(side[place]) == ids for side in sides)
        if alike and list(own.token_ids[: len(ids)]) == ids and len(own.logprobs) >= len(ids):
            found[request.key] = [float(value) for value in own.logprobs[: len(ids)]]
    return found


def add_teacher_logprobs(
    result: TokenScores | FailedScore, known: Mapping[str, list[float]]
) -> TokenScores | FailedScore:
    """Put the engine's log-probabilities beside a student's scores."""
    if isinstance(result, FailedScore):
        return result
    return replace(result, think_teacher=known[result.key])


def _read_think_ids(text: object) -> list[int] | None:
    return text.think_ids if isinstance(text, ScoringText) else None
