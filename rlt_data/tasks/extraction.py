"""The answer that a completion gives, and how it was found.

Two ways of looking for it. `stated` looks at the response only, that is at what follows the thinking, and
guesses nothing: a box, a `####` line, "the answer is ...", or a response that is one short line. `last`
looks at the whole completion, and its last resort is the last number, as several published graders do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, assert_never

from rlt_data.tasks.answers import (
    extract_answer,
    extract_boxed_answer,
    extract_hash_answer,
    extract_plain_answer,
    extract_stated_answer,
)
from rlt_data.tasks.grading.base import Extraction

Origin = Literal["boxed", "hashes", "stated", "plain", "number"]
"""How an answer was found. Graders of other kinds of answers add their own, such as `letter`."""

COMPLETION_LIMIT = 1_000_000
"""Characters of a completion that are looked at: its last ones."""

_NUMBER = re.compile(r"-?\d+(?:,\d{3})*(?:\.\d+)?")


@dataclass(frozen=True)
class ExtractedAnswer:
    """An answer and how it was found; both are None where there is no answer."""

    text: str | None = None
    found: Origin | None = None


def extract(response: str | None, completion: str, extraction: Extraction) -> ExtractedAnswer:
    """Extract the answer of a completion.

    `response` is what follows the thinking, None where the thinking never closes.
    """
    match extraction:
        case "stated":
            return ExtractedAnswer() if response is None else extract_stated(response)
        case "last":
            return extract_last(completion)
        case _:
            assert_never(extraction)


def extract_stated(response: str) -> ExtractedAnswer:
    """Extract the answer that a response states, the first that exists of the four; see the module."""
    text = response[-COMPLETION_LIMIT:]
    if answer := extract_boxed_answer(text):
        return ExtractedAnswer(answer, "boxed")
    if answer := extract_hash_answer(text):
        return ExtractedAnswer(answer, "hashes")
    if answer := extract_stated_answer(text):
        return ExtractedAnswer(answer, "stated")
    if answer := extract_plain_answer(text):
        return ExtractedAnswer(answer, "plain")
    return ExtractedAnswer()


def extract_last(completion: str) -> ExtractedAnswer:
    """Extract the last answer anywhere in a completion; if none is marked, its last number."""
    found = extract_stated(completion)
    if found.text is not None:
        return found
    number = find_last_number(completion[-COMPLETION_LIMIT:])
    return ExtractedAnswer() if number is None else ExtractedAnswer(number, "number")


def find_last_number(text: str) -> str | None:
    """Return the last number of a text, without thousands separators."""
    numbers = _NUMBER.findall(text)
    return str(numbers[-1]).replace(",", "") if numbers else None


def extract_trace_answer(trace_solution: str | None, think: str | None, completion: str | None) -> str | None:
    """Extract the answer of a trace: from its solution, else its thinking, else the whole completion.

    Explanations seldom mark their answer; where no text does, the answer is the last number of the first
    text that exists.
    """
    texts = [text for text in (trace_solution, think, completion) if text and text.strip()]
    for text in texts:
        answer = extract_answer(text)
        if answer is not None:
            return answer
    return find_last_number(texts[0]) if texts else None
