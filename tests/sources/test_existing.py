"""What stands already, and whether a repetition agrees with it."""

from __future__ import annotations

import pytest

from rlt_data.sources.existing import ExistingQuestions, ExistingTraces

ID, OTHER = "0" * 31 + "1", "0" * 31 + "2"


@pytest.mark.parametrize(
    ("standing", "again", "verdict"),
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
    standing: tuple[str, str | None, bool], again: tuple[str, str | None, bool], verdict: str
) -> None:
    known = ExistingQuestions()
    known.add(ID, standing[0], standing[1], rendered=standing[2])
    assert known.compare(ID, again[0], again[1], rendered=again[2]) == verdict
    assert known.compare(ID, None, None, rendered=False) == "same"
    assert known.compare(OTHER, again[0], again[1], rendered=again[2]) == "new"


def test_traces_count_up_by_question_and_never_twice() -> None:
    known = ExistingTraces(["f" * 32])
    assert known.add("f" * 32, ID) is None
    assert [known.add(trace * 32, ID) for trace in "abca"] == [0, 1, 2, None]
    assert known.add("d" * 32, OTHER) == 0
