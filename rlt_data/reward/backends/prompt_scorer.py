"""A scorer over backends that return log-probabilities: same texts and results as `scoring.scorer`."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

from rlt_data.formats.definition import ConversationFormat
from rlt_data.reward.backends.base import BackendFailure, LogprobBackend
from rlt_data.reward.scoring.scorer import FailedScore, TokenScores
from rlt_data.reward.scoring.texts import (
    FailedText,
    ScoreRequest,
    ScoringText,
    build_student_texts,
    build_teacher_texts,
    find_failure,
)
from rlt_data.reward.tokenizers import refuse_other_tokens

OpenBackend = Callable[[], AbstractContextManager[LogprobBackend]]
Texts = list[ScoringText | FailedText]


class PromptScorer:
    """Scores explanations through backends that are opened one after the other, the teacher's first.

    A backend returns the log-probabilities of a text's own tokens only, so there is no exact divergence.
    """

    def __init__(
        self, format: ConversationFormat, students: Sequence[OpenBackend], teacher: OpenBackend | None = None
    ) -> None:
        self.format = format
        self.notes: list[str] = []
        self._students = students
        self._teacher = teacher

    def score(self, requests: Iterable[ScoreRequest]) -> Iterator[TokenScores | FailedScore]:
        """Score requests, student by student, in the order of answers: one result per request and student.

        Raises `UsageError` where teacher and student split text into different tokens.
        """
        requests = list(requests)
        teacher_texts: Texts | None = None
        teacher_tokenizer = None
        teacher_logprobs: dict[str, array[float]] = {}
        if self._teacher is not None:
            with self._teacher() as backend:
                teacher_tokenizer = backend.tokenizer
                teacher_texts = build_teacher_texts(
                    self.format, backend.tokenizer, requests, context=backend.context
                )
                indexes = {request.key: index for index, request in enumerate(requests)}
                for key, logprobs in _run(backend, requests, teacher_texts):
                    if isinstance(logprobs, FailedText):
                        teacher_texts[indexes[key]] = logprobs
                    else:
                        teacher_logprobs[key] = array("d", logprobs)
        for open_student in self._students:
            with open_student() as backend:
                if teacher_tokenizer is not None:
                    refuse_other_tokens(teacher_tokenizer, backend.tokenizer, where=f"student {backend.name}")
                texts = build_student_texts(self.format, backend.tokenizer, requests, context=backend.context)
                yield from self._score_student(backend, requests, texts, teacher_texts, teacher_logprobs)

    def _score_student(
        self,
        backend: LogprobBackend,
        requests: Sequence[ScoreRequest],
        texts: Texts,
        teacher_texts: Texts | None,
        teacher_logprobs: dict[str, array[float]],
    ) -> Iterator[TokenScores | FailedScore]:
        teacher_by_key: dict[str, ScoringText] = {}
        for index, request in enumerate(requests):
            teacher_text = teacher_texts[index] if teacher_texts is not None else None
            failure = find_failure(request, texts[index], teacher_text)
            if failure is not None:
                texts[index] = failure
                yield FailedScore(failure, backend.name)
            elif isinstance(teacher_text, ScoringText):
                teacher_by_key[request.key] = teacher_text
        by_key = {request.key: (request, text) for request, text in zip(requests, texts, strict=True)}
        for key, logprobs in _run(backend, requests, texts):
            if isinstance(logprobs, FailedText):
                yield FailedScore(logprobs, backend.name)
                continue
            request, text = by_key[key]
            assert isinstance(text, ScoringText)
            values = teacher_logprobs.get(key)
            yield TokenScores(
                key=key,
                student=backend.name,
                closed=request.closed,
                solution_logprobs=logprobs[len(text.think) :],
                think_student=logprobs[: len(text.think)],
                think_teacher=list(values) if values is not None else None,
                think_divergences=None,
                solution_characters=text.solution_characters,
                think_characters=text.think_characters,
                student_tokens=text.total_tokens,
                teacher_tokens=teacher_by_key[key].total_tokens if key in teacher_by_key else None,
            )


def _run(
    backend: LogprobBackend, requests: Sequence[ScoreRequest], texts: Texts
) -> Iterator[tuple[str, list[float] | FailedText]]:
    """Score the usable texts: log-probabilities of the explanation's tokens, then of the solution's."""
    usable = {
        request.key: text
        for request, text in zip(requests, texts, strict=True)
        if isinstance(text, ScoringText)
    }
    for key, logprobs in backend.score((key, text.token_ids) for key, text in usable.items()):
        if isinstance(logprobs, BackendFailure):
            yield key, FailedText(key, logprobs.reason, logprobs.detail)
            continue
        text = usable[key]
        # The first token has no log-probability: that of token i has index i - 1.
        yield key, [logprobs[index - 1] for span in (text.think, text.solution) for index in span]
