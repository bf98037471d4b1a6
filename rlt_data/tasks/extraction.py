"""The answer that a completion gives, and how it was found.

Two ways of looking for it. `stated` looks at the response only, that is at what follows the thinking, and
guesses nothing: a box, a `####` line, "the answer is ..." in its last line, or a response that is one short
line. `last` looks at the whole completion: the last box, else the last `####` line, else the last "answer
is", else the last number, as several published graders do.

Of several boxes the last counts. Boxes that a comma, "and" or "or" joins, as in `\boxed{1}, \boxed{2}`, are
one answer, `1, 2`, so that naming two values does not pass for either of them. Boxes that never close, that
are empty or hold what an instruction puts there (`\boxed{...}`, `\boxed{answer}`) do not count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, assert_never

from rlt_data.tasks.answers import (
    Box,
    extract_hash_answer,
    extract_plain_answer,
    extract_stated_answer,
    find_boxes,
)
from rlt_data.tasks.grading.base import Extraction

Origin = Literal["boxed", "hashes", "stated", "plain", "number"]
"""How an answer was found. Graders of other kinds of answers add their own, such as `letter`."""

COMPLETION_LIMIT = 1_000_000
"""Characters of a completion that are looked at: its last ones."""

_NUMBER = re.compile(r"-?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?")
_JOIN_LENGTH = 60
_JOIN = re.compile(
    r"(?:[\s$,;&]|\\[,;:!()\[\] ]|\\q?quad|\\text\{\s*,?\s*(?:and|or)\s*\}|and\b|or\b"
    r"|[a-zA-Z](?:_\{?\w\}?)?\s*=)*"
)
_SEPARATOR = re.compile(r",|;|\band\b|\bor\b")
_ANSWER = re.compile(r"\banswer(?:\s+is\b:?|\s+should\s+be\b|:)", re.IGNORECASE)
_STATEMENT_LENGTH = 200
_MATH = re.compile(r"\$(?P<dollars>[^$]+)\$|\\\((?P<round>.+?)\\\)|\*\*(?P<bold>[^*]+)\*\*")
# "The answer is correct" states none; "the answer is Evelyn", "(C)", "28 pizzas" and "x + y" do.
_VALUE = re.compile(r"[-+]?[0-9\\(\[A-Z]")
_LONG_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")


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
    if answer := join_boxes(find_boxes(text), text):
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
    text = completion[-COMPLETION_LIMIT:]
    if answer := find_last_statement(text):
        return ExtractedAnswer(answer, "stated")
    number = find_last_number(text)
    return ExtractedAnswer() if number is None else ExtractedAnswer(number, "number")


def join_boxes(boxes: list[Box], text: str) -> str | None:
    """Return the content of the last box, with those of the boxes that are joined to it."""
    if not boxes:
        return None
    joined = [boxes[-1]]
    for box in reversed(boxes[:-1]):
        between = text[box.end : joined[-1].start]
        is_joined = box.end <= joined[-1].start and len(between) <= _JOIN_LENGTH
        if not is_joined or not _JOIN.fullmatch(between) or not _SEPARATOR.search(between):
            break
        joined.append(box)
    return ", ".join(dict.fromkeys(box.content for box in reversed(joined)))


def find_last_statement(text: str) -> str | None:
    """Return the last answer that a text states with "answer is", "answer should be" or "answer:"."""
    for statement in reversed(list(_ANSWER.finditer(text))):
        end = statement.end()
        rest = text[end : end + _STATEMENT_LENGTH].partition("\n")[0].strip().removeprefix("** ")
        if found := _MATH.match(rest):
            return str(next(group for group in found.groups() if group)).strip()
        sentence = _SENTENCE_END.split(rest, maxsplit=1)[0]
        answer = extract_plain_answer(sentence)
        if answer is not None and (_VALUE.match(answer) or not _LONG_WORD.search(answer)):
            return answer
        if number := _NUMBER.match(sentence.lstrip("$")):
            return number[0].replace(",", "")
    return None


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
        answer = extract_stated(text).text
        if answer is not None:
            return answer
    return find_last_number(texts[0]) if texts else None
