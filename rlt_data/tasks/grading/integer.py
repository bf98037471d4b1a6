"""The grader `integer`: is the answer exactly the true whole number? For AIME and its like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlt_data.tasks.extraction import extract
from rlt_data.tasks.grading.base import Extraction, Grade, GraderName, GraderSettings, Item, make_grade
from rlt_data.tasks.integers import read_integer


class IntegerGrader:
    """Compares whole numbers digit by digit; an answer that is not a whole number is wrong."""

    name: GraderName = "integer"
    version = "1"

    def __init__(self, settings: GraderSettings) -> None:
        del settings

    def grade(self, items: Sequence[Item], extraction: Extraction) -> list[Grade]:
        """Grade completions; the grades come in the order of the items."""
        return [self._grade(item, extraction) for item in items]

    def _grade(self, item: Item, extraction: Extraction) -> Grade:
        found = extract(item.response, item.completion, extraction)
        true, answer = read_integer(item.answer or ""), read_integer(found.text or "")
        grade = make_grade(
            self,
            item,
            extraction,
            answer=found.text,
            found=found.found,
            verdict="correct" if answer is not None and answer == true else "wrong",
            detail=None if answer is not None else "the answer is not a whole number",
        )
        if grade.verdict in ("correct", "wrong") and true is None:
            return replace(grade, verdict="ungradable", detail="the true answer is not a whole number")
        return grade

    def close(self) -> None:
        """Do nothing: this grader holds no process."""
