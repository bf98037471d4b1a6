"""The two texts of a trace that are scored: rendered, tokenized, with the tokens that count.

A token counts when its characters lie wholly inside the explanation or the solution, tags excluded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlt_data.errors import InputError
from rlt_data.formats.definition import ConversationFormat
from rlt_data.formats.rendering import RenderedText, render_student_text, render_teacher_text
from rlt_data.formats.spans import EncodedText, encode_texts, select_token_span
from rlt_data.models.tokenizer_check import find_token_without_embedding

# Characters shown before and after the position where two texts differ.
_CONTEXT = 30


@dataclass(frozen=True)
class ScoreRequest:
    """One explanation to score. `closed`: whether its closing tag was written."""

    key: str
    question: str
    solution: str
    think: str
    closed: bool = True


@dataclass(frozen=True)
class ScoringText:
    """One tokenized text, truncated after its last scored token.

    `total_tokens` counts the whole text. `think` and `solution` index `token_ids`; the character spans
    are half-open and relative to the explanation and to the solution.
    """

    token_ids: list[int]
    total_tokens: int
    think: range
    solution: range
    think_characters: list[tuple[int, int]]
    solution_characters: list[tuple[int, int]]

    @property
    def think_ids(self) -> list[int]:
        """Token ids of the explanation."""
        return self.token_ids[self.think.start : self.think.stop]

    @property
    def first_scored(self) -> int:
        """Index of the first scored token; the text's length if none is scored."""
        starts = [span.start for span in (self.think, self.solution) if span]
        return min(starts, default=len(self.token_ids))


@dataclass(frozen=True)
class FailedText:
    """A request that cannot be scored: a reason code and a sentence that shows the text."""

    key: str
    reason: str
    detail: str


def build_student_texts(
    format: ConversationFormat,
    tokenizer: Any,
    requests: Sequence[ScoreRequest],
    *,
    context: int | None = None,
) -> list[ScoringText | FailedText]:
    """Render and tokenize student texts: question, explanation, true solution.

    A text of more than `context` tokens fails.
    """
    rendered = [_render_student(format, tokenizer, request) for request in requests]
    return _encode(tokenizer, requests, rendered, ("think", "solution"), context)


def build_teacher_texts(
    format: ConversationFormat,
    tokenizer: Any,
    requests: Sequence[ScoreRequest],
    *,
    context: int | None = None,
) -> list[ScoringText | FailedText]:
    """Render and tokenize teacher texts: question, true solution, explanation.

    A text of more than `context` tokens fails. An explanation that never closed is rendered with a closing
    tag at its end.
    """
    rendered = [_render_teacher(format, tokenizer, request) for request in requests]
    return _encode(tokenizer, requests, rendered, ("think",), context)


def find_failure(
    request: ScoreRequest, student: ScoringText | FailedText, teacher: ScoringText | FailedText | None
) -> FailedText | None:
    """Return why a student cannot score a request; None where it can.

    Its own text fails, or the teacher's does, or the two split the explanation into different tokens, so
    that no token-by-token divergence exists. `teacher` is None where there is no teacher.
    """
    if isinstance(student, FailedText):
        return student
    if teacher is None or isinstance(teacher, FailedText):
        return teacher
    return _compare_think_tokens(request, student, teacher)


def _compare_think_tokens(
    request: ScoreRequest, student: ScoringText, teacher: ScoringText
) -> FailedText | None:
    if student.think_ids == teacher.think_ids:
        return None
    pairs = zip(student.think_ids, teacher.think_ids, strict=False)
    index = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(student.think), len(teacher.think)))
    return FailedText(
        request.key,
        "think_tokens_differ",
        f"the explanation is {len(student.think)} tokens in the student's text and {len(teacher.think)} in "
        f"the teacher's, and they differ from token {index} on: "
        f"{_show(request.think, student.think_characters, index)} in the student's text, "
        f"{_show(request.think, teacher.think_characters, index)} in the teacher's; a token-by-token "
        "divergence needs the same tokens",
    )


def _render_student(
    format: ConversationFormat, tokenizer: Any, request: ScoreRequest
) -> RenderedText | FailedText:
    try:
        return render_student_text(format, tokenizer, request.question, request.think, request.solution)
    except InputError as error:
        return FailedText(request.key, "invalid_text", f"{error.what} ({error.where})")


def _render_teacher(
    format: ConversationFormat, tokenizer: Any, request: ScoreRequest
) -> RenderedText | FailedText:
    try:
        return render_teacher_text(
            format,
            tokenizer,
            request.question,
            request.solution,
            request.think,
            closing=format.teacher.close,
        )
    except InputError as error:
        return FailedText(request.key, "invalid_text", f"{error.what} ({error.where})")


def _encode(
    tokenizer: Any,
    requests: Sequence[ScoreRequest],
    rendered: Sequence[RenderedText | FailedText],
    scored: tuple[str, ...],
    context: int | None,
) -> list[ScoringText | FailedText]:
    encoded = iter(encode_texts(tokenizer, [r.text for r in rendered if isinstance(r, RenderedText)]))
    return [
        r
        if isinstance(r, FailedText)
        else _refuse_unknown(tokenizer, request, text := next(encoded))
        or _select(request, r, text, scored, context)
        for request, r in zip(requests, rendered, strict=True)
    ]


def _refuse_unknown(tokenizer: Any, request: ScoreRequest, encoded: EncodedText) -> FailedText | None:
    token = find_token_without_embedding(tokenizer, encoded.token_ids)
    if token is None:
        return None
    return FailedText(
        request.key,
        "token_without_embedding",
        f"the text contains {token!r}, for which the model has no embedding",
    )


def _select(
    request: ScoreRequest,
    rendered: RenderedText,
    encoded: EncodedText,
    scored: tuple[str, ...],
    context: int | None,
) -> ScoringText | FailedText:
    if context is not None and len(encoded.token_ids) > context:
        return FailedText(
            request.key,
            "over_context",
            f"the text has {len(encoded.token_ids)} tokens and the model accepts at most {context}; "
            f"it begins {rendered.text[: 2 * _CONTEXT]!r}",
        )
    spans: dict[str, range] = {"think": range(0), "solution": range(0)}
    characters: dict[str, list[tuple[int, int]]] = {"think": [], "solution": []}
    for name in scored:
        begin, end = rendered.spans[name]
        tokens = select_token_span(encoded.offsets, (begin, end))
        if not tokens and rendered.text[begin:end].strip():
            return FailedText(
                request.key,
                "misaligned_tokens",
                f"no token lies wholly inside the {name}: every token that touches it also holds characters "
                f"outside it, in {rendered.text[max(0, begin - _CONTEXT) : end + _CONTEXT]!r}",
            )
        spans[name] = tokens
        characters[name] = [(a - begin, b - begin) for a, b in encoded.offsets[tokens.start : tokens.stop]]
    if "solution" in scored and not request.solution.strip():
        return FailedText(
            request.key, "blank_solution", "the solution is blank, so the student has nothing to score"
        )
    if any(span.start == 0 for span in spans.values() if span):
        return FailedText(
            request.key,
            "no_prompt",
            "the text begins with a scored token, so there is nothing before it to predict it from",
        )
    stop = max(span.stop for span in spans.values())
    return ScoringText(
        encoded.token_ids[:stop],
        len(encoded.token_ids),
        spans["think"],
        spans["solution"],
        characters["think"],
        characters["solution"],
    )


def _show(text: str, characters: Sequence[tuple[int, int]], index: int) -> str:
    if index >= len(characters):
        return "no further token"
    begin, end = characters[index]
    before, token, after = text[max(0, begin - _CONTEXT) : begin], text[begin:end], text[end : end + _CONTEXT]
    return f"{token!r} between {before!r} and {after!r}"
