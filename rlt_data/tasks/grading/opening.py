"""The table of graders, and how they are opened."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module

from rlt_data.tasks.grading.base import Grader, GraderName, GraderSettings

GRADERS: dict[GraderName, str] = {
    "math": "rlt_data.tasks.grading.math.grader:MathGrader",
    "integer": "rlt_data.tasks.grading.integer:IntegerGrader",
    "choice": "rlt_data.tasks.grading.choice:ChoiceGrader",
    "countdown": "rlt_data.tasks.grading.countdown:CountdownGrader",
    "reasoning_gym": "rlt_data.tasks.grading.reasoning_gym.grader:ReasoningGymGrader",
    "code": "rlt_data.tasks.grading.code.grader:CodeGrader",
    "text": "rlt_data.tasks.grading.text:TextGrader",
}
"""Module and class of each grader; the class takes `GraderSettings`."""


@contextmanager
def open_graders(
    names: Sequence[GraderName], settings: GraderSettings | None = None
) -> Iterator[dict[GraderName, Grader]]:
    """Open graders by name, and close them at the end.

    Raises `MissingExtraError` where the library of a grader is not installed.
    """
    with ExitStack() as stack:
        graders: dict[GraderName, Grader] = {}
        for name in dict.fromkeys(names):
            graders[name] = _make_grader(name, settings or GraderSettings())
            stack.callback(graders[name].close)
        yield graders


def _make_grader(name: GraderName, settings: GraderSettings) -> Grader:
    module, _, kind = GRADERS[name].partition(":")
    grader: Grader = getattr(import_module(module), kind)(settings)
    return grader
