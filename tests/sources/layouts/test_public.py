"""Each layout reads rows of its public schema."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sources.layouts.public_rows import PUBLIC, QUESTION, TAGGED, TURNS, read, recognize

from rlt_data.sources.layouts import LAYOUTS
from rlt_data.sources.rows import RowError


@pytest.mark.parametrize(("name", "row"), PUBLIC, ids=[f"{name}-{n}" for n, (name, _) in enumerate(PUBLIC)])
def test_public_schemas_are_recognized_and_read(name: str, row: dict[str, Any]) -> None:
    assert recognize(row) == name
    example = read(name, row)
    assert QUESTION in (example.question or "")
    assert example.solution or example.answer or example.solution_in_trace


def test_every_layout_is_covered_and_names_are_unique() -> None:
    names = [layout.name for layout in LAYOUTS]
    assert len(set(names)) == len(names)
    assert {name for name, _ in PUBLIC} == set(names)


def test_gsm8k_keeps_the_worked_steps_and_takes_the_final_number() -> None:
    example = read("gsm8k", {"question": "q", "answer": "3 * 400 = 1,200\n#### 1,200", "id": 7})
    assert (example.solution, example.answer) == ("3 * 400 = 1,200\n#### 1,200", "1200")
    assert example.metadata == {"id": 7}


def test_conversations_hold_question_trace_and_system_prompt() -> None:
    example = read("bespoke-stratos", {"system": "Think.", "conversations": TURNS})
    assert example.question == QUESTION
    assert [trace.text for trace in example.traces] == [TAGGED]
    assert example.solution_in_trace
    assert example.metadata == {"system": "Think."}
    within = [
        {"role": "system", "content": "Think."},
        {"from": "human", "value": "q"},
        {"from": "gpt", "value": "s"},
    ]
    example = read("messages", {"messages": within})
    assert (example.question, example.traces[0].text, example.metadata) == ("q", "s", {"system": "Think."})


@pytest.mark.parametrize(
    "turns",
    [
        "text",
        [],
        ["text"],
        [{"from": "robot", "value": "a"}],
        [{"value": "a"}],
        TURNS + TURNS,
        TURNS[1:],
        TURNS[::-1],
    ],
)
def test_conversations_of_another_shape_are_refused(turns: Any) -> None:
    with pytest.raises(RowError) as refused:
        read("sharegpt", {"conversations": turns})
    assert refused.value.reason == "malformed_conversation"


def test_openthoughts_prefers_the_ground_truth() -> None:
    row = dict(PUBLIC[5][1])
    example = read("openthoughts", row)
    assert example.solution == "4"
    assert [(t.text, t.solution, t.tagged, t.teacher) for t in example.traces] == [
        ("Two and two.", "It is 4.", False, "deepseek-r1")
    ]
    row["ground_truth_solution"] = None
    assert read("openthoughts", row).solution == "It is 4."


def test_openthoughts_math_keeps_the_published_verdict() -> None:
    example = read("openthoughts", PUBLIC[8][1])
    assert (example.solution, example.solution_in_trace) == ("4", False)
    assert [trace.grade for trace in example.traces] == [True]


def test_s1k_has_one_trace_per_model_with_its_grade() -> None:
    traces = read("s1k", PUBLIC[4][1]).traces
    assert [(t.teacher, t.text, t.solution, t.grade) for t in traces] == [
        ("gemini", "Hm.", "5", False),
        ("deepseek-r1", "Two and two.", "It is 4.", True),
    ]
    two = read(
        "s1k", {"question": "q", "solution": "4", "thinking_trajectories": ["a", None, "b"], "attempt": "4"}
    )
    assert [trace.text for trace in two.traces] == ["a", "b"]


def test_the_order_of_gpqa_choices_depends_on_the_question_alone() -> None:
    row = PUBLIC[17][1]
    example = read("gpqa", row)
    letter = example.answer
    assert f"({letter}) 4" in (example.question or "")
    assert example.solution == f"Count on.\n\nThe answer is \\boxed{{{letter}}}."
    assert example.metadata["correct_answer"] == "4"
    # Where the file lists the right choice does not change the order of the choices.
    moved = {**row, "Explanation": None}
    assert read("gpqa", moved).question == example.question
    assert read("gpqa", moved).solution is None
    letters = {read("gpqa", {**row, "Question": f"{n}?"}).answer for n in range(60)}
    assert letters == set("ABCD")


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"Incorrect Answer 2": " "}, "missing_choice"), ({"Incorrect Answer 2": "4 "}, "repeated_choice")],
)
def test_gpqa_rows_without_four_choices_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError) as refused:
        read("gpqa", {**PUBLIC[17][1], **change})
    assert refused.value.reason == reason
    assert read("gpqa", {**PUBLIC[17][1], "Question": None}).question is None


def test_generated_problems_use_worked_steps_and_examples_of_answers() -> None:
    worked = {
        "question": "q",
        "answer": "4",
        "metadata": {"source_dataset": "gsm", "answer_cot": "2+2\n#### 4"},
    }
    assert read("reasoning-gym", worked).solution == "2+2\n#### 4"
    open_ended = {
        "question": "q",
        "answer": None,
        "metadata": {"source_dataset": "g", "possible_answer": {"0": 1}},
    }
    assert read("reasoning-gym", open_ended).answer == json.dumps({"0": 1})


def test_what_is_not_read_is_kept_as_metadata() -> None:
    row = {"question": "q", "answer": "a", "completion": "c", "correct": True, "pred": "p", "level": 3}
    example = read("traces", row)
    assert example.metadata == {"pred": "p", "level": 3}
    assert [(trace.text, trace.grade) for trace in example.traces] == [("c", True)]


def test_a_trace_file_may_lack_answers_and_completions() -> None:
    assert recognize({"question": "q", "completion": "c"}) == "traces"
    assert read("traces", {"question": "q", "answer": "a", "completion": None}).traces == []
    assert [trace.text for trace in read("traces", {"question": "q", "completion": " "}).traces] == [" "]


@pytest.mark.parametrize("name", [layout.name for layout in LAYOUTS])
def test_a_row_without_anything_has_no_question(name: str) -> None:
    example = read(name, {})
    assert (example.question, example.solution, example.answer) == (None, None, None)
