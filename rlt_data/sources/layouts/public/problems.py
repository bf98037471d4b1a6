"""Layouts of plain problem sets: a question, a worked solution, a final answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, combinations
from typing import ClassVar

from rlt_data.sources.layouts.base import Example, Explanation, Layout, Row, Signatures
from rlt_data.tasks.answers import extract_hash_answer

_INTEGER = re.compile(r"0*\d{1,3}")


class Plain(Layout):
    """The layout of this program, to which `--map` usually leads."""

    name = "plain"
    about = "question, solution or answer or both, and optionally trace"
    signatures: ClassVar[Signatures] = tuple(
        ("question", *result, *trace)
        for result in chain.from_iterable(combinations(("solution", "answer"), n) for n in (1, 2))
        for trace in ((), ("trace",))
    )

    def read(self, row: Row) -> Example:
        """Read question, solution, answer, and the reasoning trace where there is one."""
        question, solution = row.take_text("question"), row.take_text("solution")
        answer, trace = row.take_text("answer"), row.take_text("trace")
        traces = [Explanation(trace, tagged=False)] if trace else []
        return Example(question, solution, answer, traces, row.take_rest())


class Gsm8k(Layout):
    """Grade-school word problems: openai/gsm8k."""

    name = "gsm8k"
    about = "question, answer (worked steps, then #### and the final answer)"
    signatures: ClassVar[Signatures] = (("question", "answer"),)
    looks_into_values = True

    def agrees(self, rows: Sequence[Row]) -> bool:
        """Return whether most answers contain a `####` line."""
        answers = [value for row in rows if isinstance(value := row.take("answer"), str)]
        return sum(extract_hash_answer(answer) is not None for answer in answers) * 2 > len(answers)

    def read(self, row: Row) -> Example:
        """Read the worked steps as the solution, verbatim, and the number after `####` as the answer."""
        question, solution = row.take_text("question"), row.take_text("answer")
        answer = extract_hash_answer(solution) if solution else None
        return Example(question, solution, answer, metadata=row.take_rest())


class Math(Layout):
    """Competition problems with LaTeX solutions: hendrycks/competition_math and similar datasets."""

    name = "math"
    about = "problem, solution or answer (the answer is the last \\boxed{} of the solution), level, type"
    signatures: ClassVar[Signatures] = (
        ("problem", "solution"),
        ("problem", "answer"),
        ("problem", "solution", "answer"),
        ("problem", "solution", "level", "type"),
    )

    def read(self, row: Row) -> Example:
        """Read problem, solution and, where there is such a column, answer."""
        question, solution = row.take_text("problem"), row.take_text("solution")
        return Example(question, solution, row.take_text("answer"), metadata=row.take_rest())


class Math500(Math):
    """HuggingFaceH4/MATH-500."""

    name = "math500"
    about = "problem, solution, answer, subject, level"
    signatures: ClassVar[Signatures] = (("problem", "solution", "answer", "subject", "level"),)


class Aime(Layout):
    """AIME as it is republished: column names in lower or upper case, with or without solutions."""

    name = "aime"
    about = "id, problem (or question), answer (an integer from 0 to 999), and optionally solution"
    signatures: ClassVar[Signatures] = (
        ("id", "problem", "answer"),
        ("id", "problem", "solution", "answer"),
        ("id", "problem", "solution", "answer", "url", "year"),
        ("id", "year", "problem number", "question", "answer"),
    )
    looks_into_values = True

    def agrees(self, rows: Sequence[Row]) -> bool:
        """Return whether every answer is an integer of at most three digits."""
        answers = [answer for row in rows if (answer := row.take("answer")) is not None]
        return all(_INTEGER.fullmatch(str(answer).removesuffix(".0").strip()) for answer in answers)

    def read(self, row: Row) -> Example:
        """Read problem and answer, and the solution where there is one."""
        question = row.take_text("problem", "question")
        solution, answer = row.take_text("solution"), row.take_text("answer")
        return Example(question, solution, answer, metadata=row.take_rest())
