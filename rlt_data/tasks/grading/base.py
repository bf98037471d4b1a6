"""The interface of graders: completions in, verdicts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Verdict = Literal[
    "correct", "wrong", "no_answer", "truncated", "unclosed_think", "timed_out", "failed", "ungradable"
]
Extraction = Literal["stated", "last"]
"""`stated`: the answer is sought after the thinking. `last`: anywhere, and the last one counts."""
GraderName = Literal["math", "integer", "choice", "countdown", "reasoning_gym", "text", "code"]


@dataclass(frozen=True)
class Item:
    """One completion to grade.

    `response` is what follows the thinking (all of a completion without tags), None where the thinking never
    closes. `answer` is the true answer, of a multiple choice the letter of the right one of `options`, which
    are in the order shown. `metadata` holds the other columns of the question's source row.
    """

    key: str
    completion: str
    response: str | None
    truncated: bool
    question: str
    answer: str | None
    options: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Grade:
    """The verdict on one completion.

    `truncated`, `unclosed_think` and `no_answer` mean that no answer was found, and why; the first that
    applies is given. `timed_out` and `failed`: the comparison gave no result. `ungradable`: the task has no
    grader that may run here, or no true answer. `detail` is a sentence where there is more to say.
    """

    key: str
    grader: GraderName
    grader_version: str
    extraction: Extraction
    extracted_answer: str | None
    extracted_from: str | None
    verdict: Verdict
    detail: str | None = None


@dataclass(frozen=True)
class GraderSettings:
    """Settings of graders: the time limit of one comparison in seconds, and the number of processes.

    `run_code` allows the grader `code` to run programs of completions, in a sandbox.
    """

    seconds: float = 5.0
    processes: int | None = None
    run_code: bool = False


class Grader(Protocol):
    """Grades completions. `version` names the rules and the library, so that grades can be told apart."""

    name: GraderName
    version: str

    def grade(self, items: Sequence[Item], extraction: Extraction) -> list[Grade]:
        """Grade completions; the grades come in the order of the items."""
        ...

    def close(self) -> None:
        """End what the grader holds open, such as processes."""
        ...


def make_grade(
    grader: Grader,
    item: Item,
    extraction: Extraction,
    *,
    answer: str | None,
    found: str | None,
    verdict: Verdict,
    detail: str | None = None,
) -> Grade:
    """Make the grade of a comparison; without an answer, or without a true one, its verdict says so.

    `found` is how the answer was found; `verdict` counts only where there are two answers to compare.
    """
    if item.answer is None or not item.answer.strip():
        verdict, detail = "ungradable", "the question has no true answer"
    elif answer is None or not answer.strip():
        verdict, detail = explain_no_answer(item), None
    return Grade(item.key, grader.name, grader.version, extraction, answer, found, verdict, detail)


def explain_no_answer(item: Item) -> Verdict:
    """Return why a completion without an answer has none."""
    if item.truncated:
        return "truncated"
    if item.response is None:
        return "unclosed_think"
    return "no_answer"
