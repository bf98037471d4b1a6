"""The scorer over backends that return log-probabilities: same texts and results as `scoring.scorer`."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rlt_data.errors import UsageError
from rlt_data.formats.definition import ConversationFormat
from rlt_data.formats.spans import compare_tokenizers
from rlt_data.reward.backends.base import BackendFailure, LogprobBackend
from rlt_data.reward.scoring.scorer import FailedScore, TokenScores
from rlt_data.reward.scoring.texts import (
    FailedText,
    ScoreRequest,
    ScoringText,
    build_student_texts,
    build_teacher_texts,
    compare_think_tokens,
)

OpenBackend = Callable[[], AbstractContextManager[LogprobBackend]]
Texts = list[ScoringText | FailedText]


class PromptScorer:
    """Scores explanations through sources that are opened one after the other, the teacher's first.

    Only the log-probabilities of the texts' own tokens are known, so there is no exact divergence.
    """

    def __init__(
        self, format: ConversationFormat, students: Sequence[OpenBackend], teacher: OpenBackend | None = None
    ) -> None:
        self.format = format
        self.notes: list[str] = []
        self._students = students
        self._teacher = teacher

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[TokenScores | FailedScore]:
        """Score requests: of each, one result a student. Student by student, in the order of answers.

        Raises `UsageError` where teacher and student cut text into different tokens.
        """
        asked = list(requests)
        teacher_texts: Texts | None = None
        teacher_tokenizer = None
        known: dict[str, array[float] | FailedText] = {}
        if self._teacher is not None:
            with self._teacher() as source:
                teacher_tokenizer = source.tokenizer
                teacher_texts = build_teacher_texts(
                    self.format, source.tokenizer, asked, context=source.context
                )
                for text, logprobs in _run(source, asked, teacher_texts):
                    known[text] = logprobs if isinstance(logprobs, FailedText) else array("d", logprobs)
        for open_student in self._students:
            with open_student() as source:
                if teacher_tokenizer is not None:
                    check_tokenizers(teacher_tokenizer, source.tokenizer, source.name)
                texts = build_student_texts(self.format, source.tokenizer, asked, context=source.context)
                yield from self._score_student(source, asked, texts, teacher_texts, known)

    def _score_student(
        self,
        source: LogprobBackend,
        requests: Sequence[ScoreRequest],
        texts: Texts,
        teacher_texts: Texts | None,
        known: dict[str, array[float] | FailedText],
    ) -> Iterator[TokenScores | FailedScore]:
        teachers: dict[str, ScoringText] = {}
        for place, request in enumerate(requests):
            failure = _find_failure(request, texts[place], teacher_texts, place, known)
            if failure is not None:
                texts[place] = failure
                yield FailedScore(failure, source.name)
            elif teacher_texts is not None and isinstance(found := teacher_texts[place], ScoringText):
                teachers[request.key] = found
        by_key = {request.key: (request, text) for request, text in zip(requests, texts, strict=True)}
        for key, logprobs in _run(source, requests, texts):
            if isinstance(logprobs, FailedText):
                yield FailedScore(logprobs, source.name)
                continue
            request, text = by_key[key]
            assert isinstance(text, ScoringText)
            values = known.get(key)
            yield TokenScores(
                key=key,
                student=source.name,
                closed=request.closed,
                solution_logprobs=logprobs[len(text.think) :],
                think_student=logprobs[: len(text.think)],
                think_teacher=list(values) if isinstance(values, array) else None,
                think_divergences=None,
                solution_characters=text.solution_characters,
                think_characters=text.think_characters,
                student_tokens=text.total_tokens,
                teacher_tokens=teachers[key].total_tokens if key in teachers else None,
            )


def _run(
    source: LogprobBackend, requests: Sequence[ScoreRequest], texts: Texts
) -> Iterator[tuple[str, list[float] | FailedText]]:
    """Score the usable texts: log-probabilities of the explanation's tokens, then of the solution's."""
    usable = {
        request.key: text
        for request, text in zip(requests, texts, strict=True)
        if isinstance(text, ScoringText)
    }
    for key, logprobs in source.score((key, text.token_ids) for key, text in usable.items()):
        if isinstance(logprobs, BackendFailure):
            yield key, FailedText(key, logprobs.reason, logprobs.detail)
            continue
        text = usable[key]
        # The first token has no log-probability, so token i stands at i - 1.
        yield key, [logprobs[place - 1] for span in (text.think, text.solution) for place in span]


def _find_failure(
    request: ScoreRequest,
    text: ScoringText | FailedText,
    teacher_texts: Texts | None,
    place: int,
    known: dict[str, array[float] | FailedText],
) -> FailedText | None:
    """Why a text is not given to the student: it fails, or the teacher's side does, or they differ."""
    if isinstance(text, FailedText):
        return text
    if teacher_texts is None:
        return None
    teacher = teacher_texts[place]
    if isinstance(teacher, FailedText):
        return teacher
    values = known.get(request.key)
    return values if isinstance(values, FailedText) else compare_think_tokens(request, text, teacher)


def check_tokenizers(teacher: Any, student: Any, name: str) -> None:
    """Refuse tokenizers that cut text differently. Raises `UsageError`; `name` is the student's."""
    reason = compare_tokenizers(teacher, student)
    if reason is not None:
        raise UsageError(
            f"r_KL compares teacher and student token by token, and {reason}",
            where=f"student {name}",
            remedy="score r_SS alone with --teacher none, or use models of one tokenizer family",
        )
