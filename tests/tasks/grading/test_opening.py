from __future__ import annotations

from typing import get_args

import pytest

from rlt_data.tasks.grading.base import GraderName, Item
from rlt_data.tasks.grading.opening import GRADERS, open_graders

pytest.importorskip("math_verify")


def make_item(response: str | None, answer: str | None = "1/2", *, truncated: bool = False) -> Item:
    completion = response if response is not None else "<think>It is 0.5, or"
    return Item("key", completion, response, truncated, "What is half of one?", answer)


def test_every_grader_of_the_table_opens_under_its_own_name() -> None:
    assert set(GRADERS) <= set(get_args(GraderName))
    with open_graders(list(GRADERS)) as graders:
        assert [grader.name for grader in graders.values()] == list(GRADERS)
        assert all(grader.version for grader in graders.values())


def test_two_graders_give_two_opinions() -> None:
    items = [make_item(r"So \boxed{0.5}."), make_item(r"So \boxed{ 1 / 2 }."), make_item(r"So \boxed{2}.")]
    with open_graders(["math", "text"]) as graders:
        verdicts = {
            name: [grade.verdict for grade in grader.grade(items, "stated")]
            for name, grader in graders.items()
        }
    assert verdicts == {
        "math": ["correct", "correct", "wrong"],
        "text": ["wrong", "correct", "wrong"],
    }


def test_completions_without_an_answer_say_why() -> None:
    items = [
        make_item(None, truncated=True),
        make_item(None),
        make_item("I do not know. Sorry."),
        make_item(r"\boxed{1}", answer=None),
    ]
    expected = ["truncated", "unclosed_think", "no_answer", "ungradable"]
    with open_graders(["math", "text"]) as graders:
        for grader in graders.values():
            assert [grade.verdict for grade in grader.grade(items, "stated")] == expected
            # The last number of the thinking is an answer, and so it is compared.
            (grade,) = grader.grade([make_item(None, "0.5")], "last")
            assert (grade.extracted_answer, grade.extracted_from, grade.verdict) == (
                "0.5",
                "number",
                "correct",
            )
