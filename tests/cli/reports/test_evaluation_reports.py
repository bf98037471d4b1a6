"""What `evaluate` and `grade` print."""

from __future__ import annotations

import json

import pytest
from command_line import QuickProgram

pytest.importorskip("math_verify")

ROWS = [
    {"question": "a?", "answer": "1", "completion": r"<think>x</think> \boxed{1}"},
    {"question": "b?", "answer": "2", "completion": r"<think>x</think> \boxed{3}"},
    {"question": "c?", "answer": "2", "completion": "<think>\nwell", "finish_reason": "length"},
    {"question": "d?", "answer": "B", "completion": "\x1b[31m\\boxed{B}", "options": ["x", "y"]},
]


@pytest.fixture
def evaluated(quick: QuickProgram) -> QuickProgram:
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (quick.folder / "done.jsonl").write_text(text, encoding="utf-8")
    return quick


ARGUMENTS = ("evaluate", "--task", "own", "--completions", "done.jsonl", "--model", "m", "--processes", "1")


def test_one_line_a_task_and_extraction(evaluated: QuickProgram) -> None:
    shown = evaluated.succeed(*ARGUMENTS)
    head, stated, last = shown.splitlines()[:3]
    assert head.split()[:3] == ["task", "model", "extraction"]
    assert stated.split()[:3] == ["own", "m", "stated"]
    assert last.split()[:3] == ["own", "m", "last"]
    assert "50.0" in stated
    assert "50.0 to 75.0" in stated  # the bounds
    assert "note: own: 1 of 4 completions of m were truncated" in shown


def test_json_has_the_results(evaluated: QuickProgram) -> None:
    summary = json.loads(evaluated.succeed(*ARGUMENTS, "--json"))
    stated = summary["extra"]["results"][0]
    assert (stated["extraction"], stated["questions"], stated["truncated"]) == ("stated", 4, 1)
    assert stated["verdicts"] == {"correct": 2, "wrong": 1, "truncated": 1}
    assert stated["pass_at"] == {"1": 0.5}


def test_grade_prints_flips_and_results(evaluated: QuickProgram) -> None:
    evaluated.succeed(*ARGUMENTS)
    shown = evaluated.succeed("grade", "--processes", "1", "--force")
    assert shown.startswith("task")
    assert "flipped: 0" in shown
    assert json.loads(evaluated.succeed("grade", "--json"))["extra"]["flips"] == []


def test_wrong_options_name_their_flag(evaluated: QuickProgram) -> None:
    assert "questions come from one source" in evaluated.fail(2, *ARGUMENTS, "--data", "done.jsonl")
    assert "--grader" in evaluated.fail(2, "grade", "--grader", "maths")
