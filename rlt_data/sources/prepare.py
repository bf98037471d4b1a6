"""Convert one source row into a question, its solution and its traces, or explain why it cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, assert_never

from rlt_data.formats import BUILT_IN, ConversationFormat, load_format, parse_student_completion
from rlt_data.sources.identity import identify_imported_trace, identify_question
from rlt_data.sources.layouts import Example, Explanation, Layout, Row
from rlt_data.sources.rows import RowError
from rlt_data.sources.values import write_json
from rlt_data.tasks.answers import extract_answer, render_answer

Untagged = Literal["unknown", "think"]
"""What a completion without tags is: of unknown structure (its think is null), or thinking as a whole."""


@dataclass(frozen=True)
class Limits:
    """The greatest lengths of a question, a solution and a trace, in characters; longer ones are rejected."""

    question: int
    solution: int
    trace: int


@dataclass(frozen=True)
class PreparedTrace:
    """The columns of a row of `traces` without run and sample index; `problem` is why it is rejected."""

    trace_id: str
    values: dict[str, Any]
    problem: RowError | None = None


@dataclass(frozen=True)
class PreparedRow:
    """A row with a valid question; `solution` is None where the row has neither solution nor answer."""

    question_id: str
    question: str
    solution: str | None
    answer: str | None
    solution_rendered: bool
    metadata: str
    traces: tuple[PreparedTrace, ...]


@dataclass(frozen=True)
class _ParsedExplanation:
    """An explanation split into thinking and solution.

    `format` names the format whose tags it has; `whole` is True where all of an untagged text is thinking.
    """

    think: str | None
    solution: str | None
    solution_closed: bool
    state: str
    format: str | None
    whole: bool = False


class Preparer:
    """Converts rows under one set of rules: formats, length limits, and what to do about missing parts.

    `solution_template` renders a solution from an answer; `teacher` is the author of traces where the
    source names none.
    """

    def __init__(
        self,
        format: ConversationFormat,
        limits: Limits,
        *,
        solution_template: str,
        untagged: Untagged,
        teacher: str | None,
    ) -> None:
        self._format = format
        self._formats = [format, *(load_format(name) for name in BUILT_IN if name != format.name)]
        self._limits = limits
        self._template = solution_template
        self._untagged = untagged
        self._teacher = teacher

    def prepare(self, layout: Layout, values: dict[str, Any]) -> PreparedRow:
        """Convert one row. Raises `RowError` where it has no valid question or is too long."""
        example = layout.read(Row(values))
        question = example.question
        if question is None:
            raise RowError("missing_question", f"the row has no question (layout {layout.name})")
        _check_length("question", question, self._limits.question)
        question_id = identify_question(question)
        metadata = write_json(example.metadata)
        solution, explanations = self._find_solution(example)
        if solution is not None:
            _check_length("solution", solution, self._limits.solution)
        answer = example.answer or (None if solution is None else extract_answer(solution))
        rendered = solution is None and answer is not None
        if rendered and answer is not None:
            solution = render_answer(answer.strip(), self._template)
            _check_length("solution", solution, self._limits.solution)
        traces = tuple(
            self._prepare_trace(question_id, explanation, metadata) for explanation in explanations
        )
        return PreparedRow(question_id, question, solution, answer, rendered, metadata, traces)

    def _find_solution(self, example: Example) -> tuple[str | None, list[Explanation]]:
        explanations = list(example.traces)
        if not (example.solution_in_trace and explanations):
            return example.solution, explanations
        first = explanations[0]
        parts = self._parse_explanation(first)
        if parts.format is None:
            # An assistant turn without tags is a solution without thinking.
            return first.text.strip() or None, explanations[1:]
        stated = (parts.solution or "").strip() if parts.solution_closed else ""
        return stated or None, explanations

    def _prepare_trace(self, question_id: str, explanation: Explanation, metadata: str) -> PreparedTrace:
        parts = self._parse_explanation(explanation)
        trace_id = identify_imported_trace(
            question_id, explanation.text, explanation.solution, whole=parts.whole
        )
        values = {
            "trace_id": trace_id,
            "question_id": question_id,
            "origin": "imported",
            "teacher": explanation.teacher or self._teacher,
            "format": parts.format,
            "completion": explanation.text,
            "think": parts.think,
            "trace_solution": parts.solution,
            "state": parts.state,
            "truncated": False,
            "grade": explanation.grade,
            "metadata": metadata,
        }
        problem = None
        try:
            _check_length("trace", explanation.text, self._limits.trace)
        except RowError as error:
            problem = error
        return PreparedTrace(trace_id, values, problem)

    def _parse_explanation(self, explanation: Explanation) -> _ParsedExplanation:
        text, name = explanation.text, self._name_format(explanation.text)
        if not text.strip():
            return _ParsedExplanation(None, explanation.solution, False, "empty", name)
        if name is None and not explanation.tagged:
            return _ParsedExplanation(text, explanation.solution, True, "closed", None)
        parsed = parse_student_completion(self._format, text)
        whole = name is None and self._takes_untagged_as_thinking()
        think = text if whole else parsed.think
        solution = parsed.solution if explanation.solution is None else explanation.solution
        return _ParsedExplanation(think, solution, parsed.solution_closed, parsed.state, name, whole)

    def _takes_untagged_as_thinking(self) -> bool:
        match self._untagged:
            case "unknown":
                return False
            case "think":
                return True
            case _:
                assert_never(self._untagged)

    def _name_format(self, text: str) -> str | None:
        """Return the name of the format whose thinking tag occurs first in `text`; None where none occurs."""
        occurrences = [
            (position, order)
            for order, format in enumerate(self._formats)
            for tag in (format.student.think_open, format.student.think_close)
            if (position := text.find(tag)) >= 0
        ]
        return self._formats[min(occurrences)[1]].name if occurrences else None


def _check_length(what: str, text: str, most: int) -> None:
    if len(text) > most:
        raise RowError(f"over_long_{what}", f"the {what} has {len(text):,} characters; the limit is {most:,}")
