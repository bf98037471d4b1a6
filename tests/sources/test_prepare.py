"""Rows prepared: solutions rendered or found in traces, limits, and traces parsed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from rlt_data.formats import load_format
from rlt_data.sources.layouts import find_layout
from rlt_data.sources.prepare import Limits, PreparedRow, Preparer
from rlt_data.sources.rows import RowError

OPEN = "<|begin_of_thought|>"
STRATOS = "<|begin_of_thought|>\n\n{}<|end_of_thought|>\n\n<|begin_of_solution|>{}<|end_of_solution|>"


def prepare(layout: str, row: dict[str, Any], **changes: Any) -> PreparedRow:
    rules: dict[str, Any] = {
        "solution_template": r"The answer is \boxed{{answer}}.",
        "untagged": "unknown",
        "teacher": None,
        **changes,
    }
    limits = rules.pop("limits", Limits(100, 100, 1000))
    return Preparer(load_format("stratos"), limits, **rules).prepare(find_layout(layout), row)


def test_a_solution_is_rendered_where_there_is_only_an_answer() -> None:
    row = prepare("plain", {"question": "q", "answer": 204.0, "level": 3})
    assert (row.solution, row.answer, row.solution_rendered) == (r"The answer is \boxed{204}.", "204", True)
    assert json.loads(row.metadata) == {"level": 3}
    assert (
        prepare("plain", {"question": "q", "answer": "4"}, solution_template="= {answer}").solution == "= 4"
    )


def test_an_answer_is_extracted_where_there_is_only_a_solution() -> None:
    row = prepare("math", {"problem": "q", "solution": r"So \boxed{7}."})
    assert (row.solution, row.answer, row.solution_rendered) == (r"So \boxed{7}.", "7", False)
    assert prepare("plain", {"question": "q", "solution": "It can be shown."}).answer is None


def test_a_row_may_have_neither() -> None:
    row = prepare("plain", {"question": "q"})
    assert (row.solution, row.answer, row.solution_rendered) == (None, None, False)


def test_texts_are_kept_verbatim() -> None:
    row = prepare("plain", {"question": " q\r\n", "solution": "\ts \n", "trace": "\n t"})
    assert (row.question, row.solution) == (" q\r\n", "\ts \n")
    assert row.traces[0].values["completion"] == row.traces[0].values["think"] == "\n t"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"solution": "s"}, "missing_question"),
        ({"question": " \n", "solution": "s"}, "missing_question"),
        ({"question": "q" * 101, "solution": "s"}, "over_long_question"),
        ({"question": "q", "solution": "s" * 101}, "over_long_solution"),
        ({"question": "q", "answer": "a" * 99}, "over_long_solution"),
        ({"question": ["a", "b"], "solution": "s"}, "wrong_type"),
        ({"question": "q", "solution": {"text": "s"}}, "wrong_type"),
        ({"question": "half \ud800", "solution": "s"}, "encoding_error"),
    ],
)
def test_rows_with_an_invalid_question_are_refused(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(RowError) as refused:
        prepare("plain", row)
    assert refused.value.reason == reason


def test_a_trace_that_is_too_long_does_not_cost_its_question() -> None:
    row = prepare("plain", {"question": "q", "solution": "s", "trace": "t" * 1001})
    problem = row.traces[0].problem
    assert problem is not None
    assert problem.reason == "over_long_trace"


@pytest.mark.parametrize(
    ("completion", "state", "think", "solution", "format"),
    [
        (STRATOS.format("Add.", "4"), "closed", "Add.", "4", "stratos"),
        ("<think>\nAdd.</think>\n\nIt is 4.", "closed", "Add.", "It is 4.", "r1"),
        ("<|begin_of_thought|>\n\nAdd", "missing_close", "Add", None, "stratos"),
        ("Add.</think>4", "missing_open", "Add.", "4", "r1"),
        ("Just talk.", "missing_open", None, None, None),
        ("<think></think>4", "empty", "", "4", "r1"),
        (" \n", "empty", None, None, None),
        (
            STRATOS.format("a<|begin_of_thought|>b", "4"),
            "repeated_tags",
            "a<|begin_of_thought|>b",
            "4",
            "stratos",
        ),
    ],
)
def test_completions_are_parsed_and_their_state_recorded(
    completion: str, state: str, think: str | None, solution: str | None, format: str | None
) -> None:
    (trace,) = prepare(
        "traces", {"question": "q", "answer": "4", "completion": completion, "correct": True}
    ).traces
    assert trace.values["completion"] == completion
    assert trace.values["grade"] is True
    found = [trace.values[name] for name in ("state", "think", "trace_solution", "format")]
    assert found == [state, think, solution, format]


def test_completions_without_tags_may_be_stored_as_thinking() -> None:
    row = {"question": "q", "answer": "4", "completion": "Just talk."}
    (trace,) = prepare("traces", row, untagged="think").traces
    assert (trace.values["think"], trace.values["state"]) == ("Just talk.", "missing_open")
    (tagged,) = prepare("traces", {**row, "completion": STRATOS.format("Add.", "4")}, untagged="think").traces
    assert tagged.values["think"] == "Add."


def test_thinking_in_a_column_of_its_own_is_closed() -> None:
    row = {
        "problem": "q",
        "deepseek_reasoning": "Add.",
        "deepseek_solution": "4",
        "ground_truth_solution": "It is 4",
    }
    (trace,) = prepare("openthoughts", row).traces
    found = [trace.values[name] for name in ("state", "think", "trace_solution", "format", "teacher")]
    assert found == ["closed", "Add.", "4", None, "deepseek-r1"]


def test_the_teacher_is_the_sources_or_the_users() -> None:
    row = {"question": "q", "answer": "4", "completion": "c"}
    assert prepare("traces", row).traces[0].values["teacher"] is None
    assert prepare("traces", row, teacher="me").traces[0].values["teacher"] == "me"
    assert prepare("traces", {**row, "model": "them"}, teacher="me").traces[0].values["teacher"] == "them"


def conversation(assistant: str) -> dict[str, Any]:
    return {"conversations": [{"from": "user", "value": "q"}, {"from": "assistant", "value": assistant}]}


def test_the_solution_of_a_conversation_is_between_its_tags() -> None:
    row = prepare("sharegpt", conversation(STRATOS.format("Add.\n\n", "\n\nSo \\boxed{4}.\n\n")))
    assert (row.solution, row.answer) == (r"So \boxed{4}.", "4")
    assert row.traces[0].values["think"] == "Add.\n\n"


def test_an_assistant_without_tags_wrote_a_solution_and_no_trace() -> None:
    row = prepare("sharegpt", conversation("It is 4."))
    assert (row.solution, row.traces) == ("It is 4.", ())


@pytest.mark.parametrize("cut", ["Add.<|end_of_thought|>\n\n<|begin_of_solution|>It i", "Add."])
def test_a_truncated_solution_is_not_used(cut: str) -> None:
    row = prepare("sharegpt", conversation("<|begin_of_thought|>\n\n" + cut))
    assert row.solution is None
    assert len(row.traces) == 1


def test_the_same_text_makes_the_same_ids() -> None:
    row = {"question": "q", "solution": "s", "trace": "t"}
    first, again = prepare("plain", row), prepare("plain", {**row, "question": " q\n"})
    assert first.question_id == again.question_id
    assert first.traces[0].trace_id == again.traces[0].trace_id
    assert first.traces[0].trace_id != prepare("plain", {**row, "question": "p"}).traces[0].trace_id
