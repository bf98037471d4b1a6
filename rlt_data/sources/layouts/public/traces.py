"""Files of model outputs: a question, its answer, and the completion of a model with its tags."""

from __future__ import annotations

from typing import ClassVar

from rlt_data.sources.layouts.base import Example, Explanation, Layout, Row, Signatures
from rlt_data.sources.values import read_flag


class Traces(Layout):
    """Evaluation outputs, such as SkyThought's: completions and whether they were graded correct."""

    name = "traces"
    about = "question, completion, and optionally solution, answer, correct, model"
    signatures: ClassVar[Signatures] = (
        ("question", "completion"),
        ("question", "answer", "completion"),
        ("question", "solution", "completion"),
        ("question", "solution", "answer", "completion"),
    )

    def read(self, row: Row) -> Example:
        """Read the completion as a trace, whose tags mark thinking and solution."""
        question, solution = row.take_text("question"), row.take_text("solution")
        answer, completion = row.take_text("answer"), row.take("completion")
        grade, teacher = read_flag(row.take("correct")), row.take_text("model")
        text = completion if isinstance(completion, str) else row.take_text("completion")
        traces = [] if text is None else [Explanation(text, grade=grade, teacher=teacher)]
        return Example(question, solution, answer, traces, row.take_rest())
