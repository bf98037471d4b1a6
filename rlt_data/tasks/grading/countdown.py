"""The grader `countdown`: does an expression use each number once, and equal the target exactly?"""

from __future__ import annotations

from collections.abc import Sequence

from rlt_data.tasks.countdown import check_expression, find_expression, read_puzzle
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


class CountdownGrader:
    """Checks expressions against the numbers and the target in the metadata of the question.

    Any expression that solves the puzzle is correct, whatever the question's own answer is. Model text is
    parsed by `rlt_data.tasks.expressions` and never evaluated.
    """

    name: GraderName = "countdown"
    version = "1"

    def __init__(self, settings: GraderSettings) -> None:
        del settings

    def grade(self, items: Sequence[Item], extraction: Extraction) -> list[Grade]:
        """Grade completions; the grades come in the order of the items."""
        return [self._grade(item, extraction) for item in items]

    def _grade(self, item: Item, extraction: Extraction) -> Grade:
        puzzle = read_puzzle(item.metadata)
        text = item.response if extraction == "stated" else item.completion
        found = (
            find_expression(text[-COMPLETION_LIMIT:], anywhere=extraction == "last")
            if text is not None
            else None
        )
        answer, how = found or (None, None)
        detail: str | None = None
        verdict: Verdict
        if puzzle is None:
            verdict = "ungradable"
            detail = "the metadata of the question has no whole numbers `numbers` and `target`"
        elif answer is None:
            verdict = explain_no_answer(item)
        else:
            detail = check_expression(answer, puzzle)
            verdict = "wrong" if detail else "correct"
        return Grade(item.key, self.name, self.version, extraction, answer, how, verdict, detail)

    def close(self) -> None:
        """Do nothing: this grader holds no process."""
