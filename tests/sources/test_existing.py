"""Existing questions, and whether a repetition agrees with them."""

from __future__ import annotations

import pytest

from rlt_data.sources.existing import ExistingQuestions, ExistingTraces

ID, OTHER = "0" * 31 + "1", "0" * 31 + "2"


@pytest.mark.parametrize(
    ("existing", "again", "verdict"),
    [
        (("Add.", "4", False), ("Add.", "4", False), "same"),
        (("Add.", "4", False), (" Add.\r\n", None, False), "same"),
        (("Add.", "4", False), ("Multiply.", "4", False), "differs"),
        (("Add.", "4", False), ("The answer is 4.", "4", True), "same"),
        (("Add.", "4", False), ("The answer is 5.", "5", True), "differs"),
        (("The answer is 4.", "4", True), ("Add.", "4", False), "same"),
        (("The answer is 4.", "4", True), ("=> 4", "4", True), "same"),
        (("The answer is 4.", "4", True), ("=> 5", "5", True), "differs"),
        (("Add.", None, False), ("The answer is 4.", "4", True), "same"),
    ],
)
def test_repetitions_are_compared_by_solution_or_by_answer(
    existing: tuple[str, str | None, bool], again: tuple[str, str | None, bool], verdict: str
) -> None:
    questions = ExistingQuestions()
    questions.add(ID, existing[0], existing[1], rendered=existing[2])
    assert questions.compare(ID, again[0], again[1], rendered=again[2]) == verdict
    assert questions.compare(ID, None, None, rendered=False) == "same"
    assert questions.compare(OTHER, again[0], again[1], rendered=again[2]) == "new"


def test_traces_count_up_by_question_and_never_twice() -> None:
    traces = ExistingTraces(["f" * 32])
    assert traces.add("f" * 32, ID) is None
    assert [traces.add(trace * 32, ID) for trace in "abca"] == [0, 1, 2, None]
    assert traces.add("d" * 32, OTHER) == 0
