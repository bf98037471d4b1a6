"""The grader `reasoning_gym`: the scorer of the question's own dataset; only its full score is correct."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from rlt_data.errors import require_module
from rlt_data.tasks.answers import extract_boxed_answer, extract_tagged_answer
from rlt_data.tasks.extraction import COMPLETION_LIMIT
from rlt_data.tasks.grading.base import (
    Extraction,
    Grade,
    GraderName,
    GraderSettings,
    Item,
    Verdict,
    explain_no_answer,
)
from rlt_data.tasks.grading.pool import Reply, WorkerPool

RULES = 1
"""Version of the rules of this module and of `child.py`; part of the grader's version."""
MAX_ANSWER = 10_000
"""Characters of the longest answer that is scored; no dataset has one that long."""

_STATED = re.compile(r"\banswer(?:\s{1,3}is\b\s{0,3}:?|\s{0,3}:)", re.IGNORECASE)
_TEXT = re.compile(r"\\text\s{0,2}\{([^{}]*)\}")


class ReasoningGymGrader:
    """Scores answers by the scorers of reasoning-gym, in processes that can be killed.

    The metadata of a question must name its dataset (`source_dataset`). Partial credit is not correct.
    Raises `MissingExtraError` where reasoning-gym is not installed.
    """

    name: GraderName = "reasoning_gym"

    def __init__(self, settings: GraderSettings) -> None:
        require_module("reasoning_gym", "problems")
        self._pool = WorkerPool(
            "rlt_data.tasks.grading.reasoning_gym.child:score",
            seconds=settings.seconds,
            processes=settings.processes,
        )
        self.version = f"{RULES}+reasoning-gym-{version('reasoning-gym')}"

    def grade(self, items: Sequence[Item], extraction: Extraction) -> list[Grade]:
        """Grade completions; the grades come in the order of the items."""
        found = [_find(item, extraction) for item in items]
        scored = [
            (index, answer[0])
            for index, (item, answer) in enumerate(zip(items, found, strict=True))
            if answer is not None and _name_dataset(item) is not None
        ]
        replies = self._pool.run([_make_request(items[index], answer) for index, answer in scored])
        by_index = {index: reply for (index, _), reply in zip(scored, replies, strict=True)}
        grades = []
        for index, (item, answer) in enumerate(zip(items, found, strict=True)):
            verdict, detail = _decide(item, answer, by_index.get(index))
            text, how = answer or (None, None)
            grades.append(Grade(item.key, self.name, self.version, extraction, text, how, verdict, detail))
        return grades

    def close(self) -> None:
        """End the processes."""
        self._pool.close()


def find_answer(text: str) -> tuple[str, str] | None:
    """Find the answer of a text, and how: answer_tag, boxed, stated, or plain, which is all of a short text.

    Answers of reasoning-gym may have several lines.
    """
    text = text[-COMPLETION_LIMIT:]
    tagged = extract_tagged_answer(text)
    if tagged is not None:
        return tagged, "answer_tag"
    box = extract_boxed_answer(text)
    if box is not None:
        return _TEXT.sub(r"\1", box).strip("$ "), "boxed"
    stated = list(_STATED.finditer(text))
    answer = text[stated[-1].end() :].strip("*_ \t\r\n") if stated else ""
    if answer:
        first, _, rest = answer.partition("\n")
        # A sentence ends with a period, and what follows an empty line is no longer the answer.
        return (first.strip("*$ ").removesuffix(".") if not rest else answer.partition("\n\n")[0]), "stated"
    return None


def _find(item: Item, extraction: Extraction) -> tuple[str, str] | None:
    text = item.response if extraction == "stated" else item.completion
    if text is None:
        return None
    found = find_answer(text)
    if found is None and not item.truncated and item.response and len(item.response) <= MAX_ANSWER:
        # Its prompts ask for the answer alone.
        found = (item.response.strip(), "plain") if item.response.strip() else None
    return found if found is None or len(found[0]) <= MAX_ANSWER else None


def _name_dataset(item: Item) -> str | None:
    name = item.metadata.get("source_dataset")
    return name if isinstance(name, str) and name else None


def _make_request(item: Item, answer: str) -> list[Any]:
    entry = {"question": item.question, "answer": item.answer, "metadata": dict(item.metadata)}
    return [_name_dataset(item), answer, entry]


def _decide(item: Item, answer: tuple[str, str] | None, reply: Reply | None) -> tuple[Verdict, str | None]:
    if _name_dataset(item) is None:
        return "ungradable", "the metadata of the question does not name a dataset of reasoning-gym"
    if answer is None or reply is None:
        return explain_no_answer(item), None
    if reply.failure is not None:
        return reply.failure, reply.detail
    if reply.value >= 1:
        return "correct", None
    return "wrong", f"the scorer gave {reply.value:g}" if reply.value else None
