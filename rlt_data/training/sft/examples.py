"""Supervised examples: token ids and labels of rendered conversations.

Labels are on what the model learns to write, and nowhere else: the teacher's explanation with its closing
tag, or the student's whole turn; each followed by the end token, without which a model never stops.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rlt_data.formats import (
    ConversationFormat,
    RenderedText,
    encode_texts,
    render_student_text,
    render_teacher_text,
    require_end_token,
    select_token_span,
)

IGNORED = -100
"""The label of a token without loss, as in torch's cross entropy and TRL."""


class Explained(NamedTuple):
    """One question with its true solution and an explanation."""

    question: str
    solution: str
    think: str


@dataclass(frozen=True)
class SupervisedExample:
    """One tokenized text; `labels` are its token ids where there is loss and `IGNORED` elsewhere."""

    token_ids: list[int]
    labels: list[int]
    rendered: RenderedText
    offsets: list[tuple[int, int]]

    @property
    def is_aligned(self) -> bool:
        """Whether the labels begin where the prompt ends, with no token that crosses that boundary."""
        begin = self.rendered.spans["prompt"][1]
        first = next((i for i, label in enumerate(self.labels) if label != IGNORED), None)
        return first is not None and self.offsets[first][0] == begin


def build_teacher_examples(
    format: ConversationFormat,
    tokenizer: Any,
    rows: Iterable[Explained],
    *,
    end_token_ids: Collection[int] = (),
) -> list[SupervisedExample]:
    """Build teacher examples: prompt with question and solution, then explanation, closing tag and end token.

    The end token is the one with which the chat template ends a turn; `end_token_ids` are the end tokens of
    the model's generation configuration. Raises as `encode_texts`, `render_teacher_text` and
    `require_end_token`.
    """
    closing = format.teacher.close + require_end_token(format, tokenizer, end_token_ids)
    texts = [
        render_teacher_text(format, tokenizer, row.question, row.solution, row.think, closing=closing)
        for row in rows
    ]
    return _label_texts(tokenizer, texts)


def build_student_examples(
    format: ConversationFormat, tokenizer: Any, rows: Iterable[Explained]
) -> list[SupervisedExample]:
    """Build student examples: question, then explanation, true solution and end token.

    Raises as `encode_texts` and `render_student_text`.
    """
    texts = [render_student_text(format, tokenizer, row.question, row.think, row.solution) for row in rows]
    return _label_texts(tokenizer, texts)


def _label_texts(tokenizer: Any, texts: Sequence[RenderedText]) -> list[SupervisedExample]:
    examples = []
    encoded = encode_texts(tokenizer, [rendered.text for rendered in texts])
    for rendered, text in zip(texts, encoded, strict=True):
        written = select_token_span(text.offsets, (rendered.spans["prompt"][1], len(rendered.text)))
        labels = [IGNORED] * len(text.token_ids)
        labels[written.start : written.stop] = text.token_ids[written.start : written.stop]
        examples.append(SupervisedExample(text.token_ids, labels, rendered, text.offsets))
    return examples
