"""s1K and s1K-1.1: question, solution, and the thinking of one or two models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from rlt_data.sources.layouts.base import Example, Explanation, Layout, Row, Signatures
from rlt_data.sources.values import read_flag, read_text

# Columns of thinking, attempt and grade, and their model; s1K names none (the thinking is Gemini's).
_TRACES = (
    ("thinking_trajectories", "attempt", "grade", None),
    ("gemini_thinking_trajectory", "gemini_attempt", "gemini_grade", "gemini"),
    ("deepseek_thinking_trajectory", "deepseek_attempt", "deepseek_grade", "deepseek-r1"),
)


class S1k(Layout):
    """simplescaling/s1K and simplescaling/s1K-1.1."""

    name = "s1k"
    about = (
        "question, solution, thinking_trajectories, attempt (s1K-1.1: thinking_trajectory, attempt and "
        "grade, prefixed by deepseek_ and gemini_), and optionally answer"
    )
    signatures: ClassVar[Signatures] = (
        ("question", "solution", "thinking_trajectories"),
        ("question", "solution", "thinking_trajectories", "attempt"),
        ("question", "solution", "deepseek_thinking_trajectory", "deepseek_attempt"),
        ("question", "solution", "gemini_thinking_trajectory", "gemini_attempt"),
    )

    def read(self, row: Row) -> Example:
        """Read the published solution (often only an answer), and the thinking of each model as a trace."""
        question, solution = row.take_text("question"), row.take_text("solution")
        answer = row.take_text("answer")
        traces = []
        for thinking, attempt, grade, teacher in _TRACES:
            texts = _list_texts(row.take(thinking), thinking)
            stated, graded = row.take_text(attempt), read_flag(row.take(grade))
            traces += [
                Explanation(text, tagged=False, solution=stated, grade=graded, teacher=teacher)
                for text in texts
            ]
        return Example(question, solution, answer, traces, row.take_rest())


def _list_texts(value: Any, column: str) -> list[str]:
    items = value if isinstance(value, Sequence) and not isinstance(value, str | bytes) else [value]
    return [text for item in items if (text := read_text(item, column)) is not None]
