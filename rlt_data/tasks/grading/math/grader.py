"""The grader `math`: are two answers equal as mathematics?"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from rlt_data.tasks.extraction import extract
from rlt_data.tasks.grading.base import Extraction, Grade, GraderName, GraderSettings, Item, make_grade
from rlt_data.tasks.grading.math.verifier import AnswerVerifier

RULES = 2
"""Version of the rules of this module and of `comparison.py`; part of the grader's version."""


class MathGrader:
    """Compares answers by math-verify in processes that can be killed."""

    name: GraderName = "math"

    def __init__(self, settings: GraderSettings) -> None:
        self._verifier = AnswerVerifier(seconds=settings.seconds, processes=settings.processes)
        self.version = f"{RULES}+math-verify-{version('math-verify')}"

    def grade(self, items: Sequence[Item], extraction: Extraction) -> list[Grade]:
        """Grade completions; the grades come in the order of the items."""
        found = [extract(item.response, item.completion, extraction) for item in items]
        pairs = [(item.answer, answer.text) for item, answer in zip(items, found, strict=True)]
        compared = self._verifier.compare(pairs)
        return [
            make_grade(
                self,
                item,
                extraction,
                answer=answer.text,
                found=answer.found,
                verdict=result.verdict,
                detail=result.detail,
            )
            for item, answer, result in zip(items, found, compared, strict=True)
        ]

    def close(self) -> None:
        """End the processes."""
        self._verifier.close()
