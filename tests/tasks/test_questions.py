"""Questions of tasks from files, generators and rows made up as GPQA has them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rlt_data.errors import UsageError
from rlt_data.sources.identity import identify_question
from rlt_data.tasks.definition import ChoiceColumns, TaskDefinition, load_task
from rlt_data.tasks.prompts import write_prompt
from rlt_data.tasks.questions import BadQuestion, TaskQuestion, open_questions

GPQA = {
    "Question": "Which particle carries the strong force?",
    "Correct Answer": "the gluon",
    "Incorrect Answer 1": "the photon",
    "Incorrect Answer 2": "the W boson",
    "Incorrect Answer 3": "the graviton",
    "Subdomain": "Physics",
}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def read_all(task: TaskDefinition, data: str, **options: Any) -> tuple[list[TaskQuestion], list[BadQuestion]]:
    bad: list[BadQuestion] = []
    return list(open_questions(task, data=data, **options).read(bad.append)), bad


def test_questions_of_a_file_have_the_ids_that_ingest_gives_them(tmp_path: Path) -> None:
    rows = [{"question": "What is 2 + 2?", "answer": "4", "level": 1}]
    [question], bad = read_all(load_task("own").task, write_rows(tmp_path / "q.jsonl", rows))
    assert question.question_id == identify_question("What is 2 + 2?")
    assert (question.answer, question.source, question.source_row) == ("4", "q.jsonl", 0)
    assert json.loads(question.metadata) == {"level": 1}
    assert bad == []


def test_rows_that_are_no_questions_are_named(tmp_path: Path) -> None:
    rows = [
        {"question": "a?", "answer": "1"},
        {"question": " ", "answer": "2"},
        {"question": "a?", "answer": "3"},
    ]
    questions, bad = read_all(load_task("own").task, write_rows(tmp_path / "q.jsonl", rows))
    assert len(questions) == 1
    assert [(row.source_row, row.reason) for row in bad] == [(1, "missing_question"), (2, "duplicate")]


def test_columns_can_be_mapped(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "q.jsonl", [{"riddle": "a?", "reply": "1"}])
    questions, _ = read_all(load_task("own").task, data, mapping={"question": "riddle", "answer": "reply"})
    assert [question.answer for question in questions] == ["1"]


def test_gpqa_keeps_its_options_apart_from_the_question(tmp_path: Path) -> None:
    task = load_task("gpqa_diamond").task
    [question], bad = read_all(task, write_rows(tmp_path / "g.jsonl", [GPQA]))
    assert bad == []
    assert question.question == GPQA["Question"]
    assert question.options[question.right or 0] == "the gluon"
    assert json.loads(question.metadata) == {"Subdomain": "Physics"}
    prompt = write_prompt(task, question, 0)
    assert sorted(prompt.options) == sorted(question.options)
    assert prompt.options["ABCD".index(prompt.answer or "")] == "the gluon"
    assert prompt.message.endswith(
        ", ".join(f"{a}) {b}" for a, b in zip("ABCD", prompt.options, strict=True))
    )


def test_the_right_option_stands_at_every_letter_equally_often(tmp_path: Path) -> None:
    task = load_task("gpqa_diamond").task
    rows = [{**GPQA, "Question": f"Question {number}?"} for number in range(400)]
    questions, _ = read_all(task, write_rows(tmp_path / "g.jsonl", rows))
    letters = Counter(write_prompt(task, question, 0).answer for question in questions)
    assert all(70 <= letters[letter] <= 130 for letter in "ABCD"), letters
    # And another sample of the same question has another order.
    again = [write_prompt(task, question, 1).options for question in questions]
    assert again != [write_prompt(task, question, 0).options for question in questions]
    assert again == [write_prompt(task, question, 1).options for question in questions]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Incorrect Answer 2": ""}, "missing_choice"),
        ({"Incorrect Answer 2": "the photon "}, "repeated_choice"),
        ({"Question": None}, "missing_question"),
    ],
)
def test_a_choice_with_a_missing_part_is_named(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    data = write_rows(tmp_path / "g.jsonl", [GPQA | change])
    questions, bad = read_all(load_task("gpqa_diamond").task, data)
    assert ([], [reason]) == (questions, [row.reason for row in bad])


@pytest.mark.parametrize("answer", ["B", "b", "1", 1, "green"])
def test_options_in_a_list_with_a_letter_a_position_or_a_text(tmp_path: Path, answer: object) -> None:
    task = load_task("gpqa_diamond").task.model_copy(
        update={"choices": ChoiceColumns(question="q", options="choices", answer="gold")}
    )
    data = write_rows(tmp_path / "g.jsonl", [{"q": "a?", "choices": ["red", "green"], "gold": answer}])
    [question], _ = read_all(task, data)
    assert (question.options, question.right) == (("red", "green"), 1)


def test_the_same_words_with_other_options_are_another_question(tmp_path: Path) -> None:
    rows = [GPQA, {**GPQA, "Correct Answer": "gluons"}]
    questions, bad = read_all(load_task("gpqa_diamond").task, write_rows(tmp_path / "g.jsonl", rows))
    assert len({question.question_id for question in questions}) == 2
    assert bad == []


def test_generated_questions_keep_what_their_scorer_needs() -> None:
    pytest.importorskip("reasoning_gym")
    task = load_task("countdown").task
    assert task.source is not None
    small = task.model_copy(update={"source": task.source.model_copy(update={"size": 3})})
    questions = list(open_questions(small).read(lambda bad: None))
    assert len(questions) == 3
    metadata = json.loads(questions[0].metadata)
    assert {"numbers", "target"} <= set(metadata)


def test_the_identity_follows_the_content(tmp_path: Path) -> None:
    task = load_task("own").task
    data = write_rows(tmp_path / "q.jsonl", [{"question": "a?", "answer": "1"}])
    before = open_questions(task, data=data).identity
    assert before == open_questions(task, data=data).identity
    write_rows(tmp_path / "q.jsonl", [{"question": "a?", "answer": "2"}])
    assert before != open_questions(task, data=data).identity


def test_a_task_without_questions_asks_for_them() -> None:
    with pytest.raises(UsageError, match="has no questions of its own"):
        open_questions(load_task("own").task)


def test_braces_in_a_question_stay_as_they_are() -> None:
    question = TaskQuestion("id", r"\frac{1}{2} {options} {question}", "1", "x", 0, "{}")
    message = write_prompt(load_task("math500").task, question, 0).message
    assert message.endswith(r"\frac{1}{2} {options} {question}")
