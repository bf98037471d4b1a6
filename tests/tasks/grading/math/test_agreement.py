"""Agreement with published grades over 500 real traces, and of every published answer with itself."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from rlt_data.formats import find_response, load_built_in, parse_student_completion
from rlt_data.tasks.answers import extract_answer
from rlt_data.tasks.grading.base import Grade, Item
from rlt_data.tasks.grading.opening import open_graders

pytest.importorskip("math_verify")

DISAGREEMENTS = tomllib.loads(Path(__file__).with_name("disagreements.toml").read_text(encoding="utf-8"))[
    "rows"
]


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_item(row: dict[str, Any]) -> Item:
    parsed = parse_student_completion(load_built_in("stratos"), row["completion"])
    return Item(
        key=str(row["idx"]),
        completion=row["completion"],
        response=find_response(row["completion"], parsed),
        truncated=False,
        question=row["question"],
        answer=row["answer"],
    )


@pytest.fixture(scope="module")
def rows(shared_data: Path) -> list[dict[str, Any]]:
    return read_rows(shared_data / "skyt1_27b_math500.jsonl")


@pytest.fixture(scope="module")
def grades(rows: list[dict[str, Any]]) -> dict[str, list[Grade]]:
    items = [make_item(row) for row in rows]
    with open_graders(["math"]) as graders:
        return {extraction: graders["math"].grade(items, extraction) for extraction in ("stated", "last")}


def test_last_agrees_with_the_published_grades(
    rows: list[dict[str, Any]], grades: dict[str, list[Grade]]
) -> None:
    pairs = list(zip(rows, grades["last"], strict=True))
    agreed = sum(row["correct"] == (grade.verdict == "correct") for row, grade in pairs)
    assert agreed >= 0.97 * len(rows)
    assert not {"timed_out", "failed"} & {grade.verdict for grade in grades["last"]}


def test_the_disagreements_are_those_that_were_settled_by_hand(
    rows: list[dict[str, Any]], grades: dict[str, list[Grade]]
) -> None:
    found = [
        {
            "row": row["idx"],
            "gold": row["answer"],
            "extracted": grade.extracted_answer,
            "published": row["correct"],
            "ours": grade.verdict,
        }
        for row, grade in zip(rows, grades["last"], strict=True)
        if row["correct"] != (grade.verdict == "correct")
    ]
    assert found == [
        {name: value for name, value in row.items() if name not in ("right", "why")} for row in DISAGREEMENTS
    ]
    assert sum(row["right"] == "ours" for row in DISAGREEMENTS) >= 0.9 * len(DISAGREEMENTS)


def test_stated_guesses_nothing(rows: list[dict[str, Any]], grades: dict[str, list[Grade]]) -> None:
    pairs = list(zip(rows, grades["stated"], strict=True))
    missed = [(row, grade) for row, grade in pairs if row["correct"] != (grade.verdict == "correct")]
    assert 0.82 <= 1 - len(missed) / len(rows) <= 0.86
    # A published "correct" that `stated` misses has no answer; none is compared and found wrong.
    assert {grade.verdict for row, grade in missed if row["correct"]} <= {"no_answer", "unclosed_think"}
    settled = {row["row"] for row in DISAGREEMENTS}
    assert {row["idx"] for row, _ in missed if not row["correct"]} <= settled


@pytest.mark.parametrize("file", ["math500", "gsm8k_test", "aime24"])
def test_every_published_answer_verifies_against_itself(shared_data: Path, file: str) -> None:
    """As a box in a sentence, and so through the extraction."""
    items = []
    for number, row in enumerate(read_rows(shared_data / f"{file}.jsonl")):
        answer = extract_answer(row["answer"]) if file == "gsm8k_test" else row["answer"]
        text = rf"The answer is $\boxed{{{answer}}}$."
        items.append(Item(str(number), text, text, False, "", answer))
    with open_graders(["math", "text"]) as graders:
        failing = [
            (name, grade.key, grade.extracted_answer)
            for name, grader in graders.items()
            for grade in grader.grade(items, "stated")
            if grade.verdict != "correct"
        ]
    assert failing == []
