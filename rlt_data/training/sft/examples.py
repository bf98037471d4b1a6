"""Supervised examples: token ids and labels of rendered conversations.

Labels are on what the model learns to write, and nowhere else: the teacher's explanation with its closing
tag, or the student's whole turn; each followed by the end token, without which a model never stops.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rlt_data.errors import InputError
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


def check_example(
    example: SupervisedExample,
    tokenizer: Any,
    format: ConversationFormat,
    *,
    closing: str,
    end_token_ids: Collection[int] = (),
) -> None:
    """Check that an example teaches the model to write the tag `closing` and to stop.

    Raises `InputError` where the labels do not begin where the prompt ends, lack the tag, or do not end with
    the end token; `ModelError` where the chat template writes no end token.
    """
    end = require_end_token(format, tokenizer, end_token_ids)
    written = tokenizer.decode([label for label in example.labels if label != IGNORED])
    expected = example.rendered.text[example.rendered.spans["prompt"][1] :]
    where = f"labels: {written[-120:]!r}"
    if example.labels[-1] != tokenizer.convert_tokens_to_ids(end):
        raise InputError(
            f"the labels do not end with the end token {end!r}, so the model would not learn to stop",
            where=where,
            remedy="check the chat template's end of turn and the tokenizer's eos_token",
        )
    if closing not in written:
        raise InputError(f"the labels lack the closing tag {closing!r}", where=where)
    # Not by comparing texts: a tokenizer that normalizes decodes to another spelling of the same text.
    if not example.is_aligned:
        raise InputError(
            "a token crosses the end of the prompt, so the labels lack the beginning of what follows",
            where=f"{where}; expected {expected[:120]!r}",
            remedy="end the format's prefill at a token boundary, such as a line break",
        )


def describe_example(example: SupervisedExample, *, limit: int = 2000) -> str:
    """Describe one example: its text with the labeled part between ⟦ and ⟧, its spans and token counts."""
    text = example.rendered.text
    begin = example.rendered.spans["prompt"][1]
    labeled = sum(label != IGNORED for label in example.labels)
    shown = f"{text[:begin]}⟦{text[begin:]}⟧"
    if len(shown) > limit:
        shown = f"{shown[: limit // 2]} [...] {shown[-limit // 2 :]}"
    spans = ", ".join(f"{name} {a}:{b}" for name, (a, b) in sorted(example.rendered.spans.items()))
    return f"{shown}\nspans (characters): {spans}\n{len(example.token_ids)} tokens, {labeled} of them labeled"


def _label_texts(tokenizer: Any, texts: Sequence[RenderedText]) -> list[SupervisedExample]:
    examples = []
    encoded = encode_texts(tokenizer, [rendered.text for rendered in texts])
    for rendered, text in zip(texts, encoded, strict=True):
        written = select_token_span(text.offsets, (rendered.spans["prompt"][1], len(rendered.text)))
        labels = [IGNORED] * len(text.token_ids)
        labels[written.start : written.stop] = text.token_ids[written.start : written.stop]
        examples.append(SupervisedExample(text.token_ids, labels, rendered, text.offsets))
    return examples
