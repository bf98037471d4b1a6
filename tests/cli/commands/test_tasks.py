"""The command `tasks`."""

from __future__ import annotations

import json

from command_line import QuickProgram


def test_it_lists_the_tasks_and_shows_one(quick: QuickProgram) -> None:
    listed = quick.succeed("tasks", "--json")
    names = {row["name"] for row in json.loads(listed)}
    assert {"aime24", "gpqa_diamond", "countdown"} <= names
    shown = quick.succeed("tasks", "gpqa_diamond")
    assert "only include the letter choice (A, B, C, or D)" in shown
    assert "gated" in shown
    described = json.loads(quick.succeed("tasks", "gpqa_diamond", "--json"))
    assert described["prompt_hash"] in shown


def test_an_unknown_task_is_wrong_usage(quick: QuickProgram) -> None:
    assert "did you mean 'gpqa_diamond'" in quick.fail(2, "tasks", "gpqa_diamonds")
