"""Checks of every example before the first step: what it teaches, and the prompt that it begins with."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlt_data.errors import InputError
from rlt_data.formats import ConversationFormat, require_end_token
from rlt_data.training.sft.examples import IGNORED, SupervisedExample


@dataclass(frozen=True)
class Flaw:
    """Why an example must not be learned from; `span` is the offending part, in characters of its text."""

    what: str
    remedy: str | None
    span: tuple[int, int]


class ExampleChecker:
    """Checks examples of one model and format.

    `closing` is the tag that the labels must contain, `end_token_ids` the end tokens of the model's
    generation configuration. Raises `ModelError` where the chat template writes no end token.
    """

    def __init__(
        self,
        format: ConversationFormat,
        tokenizer: Any,
        *,
        closing: str,
        end_token_ids: Collection[int] = (),
    ) -> None:
        self.closing = closing
        self.end = require_end_token(format, tokenizer, end_token_ids)
        self.end_id = int(tokenizer.convert_tokens_to_ids(self.end))
        self._tokenizer = tokenizer

    def find_flaw(self, example: SupervisedExample, prompt_ids: Sequence[int] | None = None) -> Flaw | None:
        """Find the first flaw of an example; None for one that can be learned from.

        `prompt_ids` are the tokens that inference sends for it.
        """
        begin, whole = example.rendered.spans["prompt"][1], len(example.rendered.text)
        labeled = np.flatnonzero(np.asarray(example.labels) != IGNORED)
        if not len(labeled):
            return Flaw("no token has a label, so nothing would be learned", None, (begin, whole))
        first = int(labeled[0])
        # An end token anywhere else (of an earlier turn, or inside the thinking) does not teach to stop.
        if example.labels[-1] != self.end_id or example.token_ids[-1] != self.end_id:
            return Flaw(
                f"the labels do not end with the end token {self.end!r}, so the model would not learn to "
                "stop",
                "check the chat template's end of turn and the tokenizer's eos_token",
                (example.offsets[-1][0], whole),
            )
        if not self._has_closing(example, labeled):
            return Flaw(f"the labels lack the closing tag {self.closing!r}", None, (begin, whole))
        # Not by comparing texts: a tokenizer that normalizes decodes to another spelling of the same text.
        if not example.is_aligned:
            return Flaw(
                "a token crosses the end of the prompt, so the labels lack the beginning of what follows",
                "end the format's prefill at a token boundary, such as a line break",
                self._span_tokens(example, max(0, first - 1), first),
            )
        if len(labeled) != len(example.labels) - first:
            gap = int(next(i for i in range(first, len(example.labels)) if example.labels[i] == IGNORED))
            return Flaw("the labels have a gap", None, self._span_tokens(example, gap, gap + 1))
        think = example.rendered.spans["think"]
        if not example.rendered.text[think[0] : think[1]].strip():
            return Flaw("the thinking is empty", None, think)
        return self._find_other_prompt(example, prompt_ids) if prompt_ids is not None else None

    def has_inner_end(self, example: SupervisedExample) -> bool:
        """Whether the end token is a label before the end too: the model would learn to stop there."""
        return self.end_id in example.labels[:-1]

    def _has_closing(self, example: SupervisedExample, labeled: np.ndarray) -> bool:
        begin = example.rendered.spans["prompt"][1]
        if len(labeled) == len(example.labels) - labeled[0]:
            return self.closing in example.rendered.text[begin:]
        return self.closing in self._tokenizer.decode([example.labels[i] for i in labeled])

    def _find_other_prompt(self, example: SupervisedExample, prompt_ids: Sequence[int]) -> Flaw | None:
        first = next(i for i, label in enumerate(example.labels) if label != IGNORED)
        trained = example.token_ids[:first]
        if trained == list(prompt_ids):
            return None
        pairs = zip(trained, prompt_ids, strict=False)
        apart = next((i for i, (a, b) in enumerate(pairs) if a != b), min(first, len(prompt_ids)))
        sent = self._tokenizer.decode(prompt_ids[apart : apart + 5])
        return Flaw(
            f"the example does not begin with the prompt that inference sends: token {apart} of "
            f"{len(prompt_ids)} differs, where inference sends {sent!r}",
            "let the format's prompt and the beginning of its answer meet at a token boundary",
            self._span_tokens(example, apart, apart + 5),
        )

    def _span_tokens(self, example: SupervisedExample, first: int, stop: int) -> tuple[int, int]:
        last = min(stop, len(example.offsets)) - 1
        first = min(first, last)
        return example.offsets[first][0], example.offsets[last][1]


def check_example(
    example: SupervisedExample,
    tokenizer: Any,
    format: ConversationFormat,
    *,
    closing: str,
    end_token_ids: Collection[int] = (),
) -> None:
    """Check that an example teaches the model to write the tag `closing` and to stop.

    Raises `InputError` where it does not (see `ExampleChecker`), `ModelError` where the chat template writes
    no end token.
    """
    checker = ExampleChecker(format, tokenizer, closing=closing, end_token_ids=end_token_ids)
    if (flaw := checker.find_flaw(example)) is not None:
        part = example.rendered.text[slice(*flaw.span)]
        raise InputError(flaw.what, where=f"{part[-120:]!r}", remedy=flaw.remedy)
