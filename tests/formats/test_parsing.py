from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.formats import (
    ConversationFormat,
    build_student_messages,
    load_built_in,
    parse_student_completion,
    parse_teacher_completion,
)

STRATOS = load_built_in("stratos")
R1 = load_built_in("r1")
CLOSE = "<|end_of_explanation|>"
OPEN = "<|begin_of_explanation|>"
BT, ET = "<|begin_of_thought|>", "<|end_of_thought|>"
BS, ES = "<|begin_of_solution|>", "<|end_of_solution|>"


@pytest.mark.parametrize(
    ("completion", "think", "state"),
    [
        (f"Add.\n\n{CLOSE}", "Add.\n\n", "closed"),
        (f"Add.{CLOSE}<|im_end|>\n", "Add.", "closed"),
        ("Add. Then", "Add. Then", "missing_close"),
        ("", "", "missing_close"),
        (f" \n{CLOSE}", " \n", "empty"),
        (f"a{OPEN}b{CLOSE}", f"a{OPEN}b", "repeated_tags"),
        (f"a{CLOSE}b{CLOSE}", "a", "repeated_tags"),
        ("a<|end_of_explanation", "a<|end_of_explanation", "missing_close"),
    ],
)
def test_a_teacher_completion_is_cut_at_its_first_closing_tag(
    completion: str, think: str, state: str
) -> None:
    parsed = parse_teacher_completion(STRATOS, completion)
    assert (parsed.think, parsed.solution, parsed.state) == (think, None, state)


@pytest.mark.parametrize(
    ("completion", "think", "state"),
    [
        (f"{BS}18{ES}\n\n{OPEN}\n\nAdd.\n\n{CLOSE}", "Add.\n\n", "closed"),
        ("18. Add.", None, "missing_open"),
        (f"{OPEN}Add.", "Add.", "missing_close"),
    ],
)
def test_a_teacher_that_was_not_prefilled_opens_the_explanation_itself(
    completion: str, think: str | None, state: str
) -> None:
    parsed = parse_teacher_completion(STRATOS, completion, prefilled=False)
    assert (parsed.think, parsed.state) == (think, state)


@pytest.mark.parametrize(
    ("text", "think", "solution", "state", "solution_closed"),
    [
        (f"{BT}\n\nA\n\n{ET}\n\n{BS}\n\nB\n\n{ES}", "A\n\n", "\n\nB\n\n", "closed", True),
        (f"{BT}A{ET}{BS}B", "A", "B", "closed", False),
        (f"{BT}A{ET}\n\n B ", "A", "B", "closed", True),
        (f"{BT}A{ET}", "A", None, "closed", False),
        (f"{BT}\n\nA and on", "A and on", None, "missing_close", False),
        (f"A{ET}{BS}B{ES}", "A", "B", "missing_open", True),
        ("just an answer: 4", None, None, "missing_open", False),
        ("", None, None, "missing_open", False),
        (f"{BT}\n\n {ET}{BS}B{ES}", " ", "B", "empty", True),
        (f"{BT}A{BT}C{ET}{BS}B{ES}", f"A{BT}C", "B", "repeated_tags", True),
        (f"{BT}A{ET}{BT}C{ET}{BS}B{ES}", "A", "B", "repeated_tags", True),
        (f"{BT}A{ET}{BS}B{ES}{BS}B{ES}", "A", "B", "repeated_tags", True),
        (f"A{ET}{BT}B", "A", f"{BT}B", "missing_open", True),
        ("<think>\nA\n</think>\n\nB", "A\n", "B", "closed", True),
        ("A\n</think>\n\nB", "A\n", "B", "missing_open", True),
        ("<think>A</think>\n<answer> 4 </answer>", "A", " 4 ", "closed", True),
        (f"<think>A says {ET}</think>B", f"A says {ET}", "B", "closed", True),
        (f"{BT}A <think> hm{ET}{BS}B{ES}", "A <think> hm", "B", "closed", True),
    ],
)
@pytest.mark.parametrize("format", [STRATOS, R1], ids=["stratos", "r1"])
def test_an_imported_trace_is_parsed_with_the_tags_of_any_family(
    format: ConversationFormat,
    text: str,
    think: str | None,
    solution: str | None,
    state: str,
    solution_closed: bool,
) -> None:
    parsed = parse_student_completion(format, text)
    assert (parsed.think, parsed.solution, parsed.state) == (think, solution, state)
    assert parsed.solution_closed == solution_closed


def test_a_users_own_tags_are_recognized() -> None:
    own = STRATOS.model_copy(
        update={
            "student": STRATOS.student.model_copy(
                update={"think_open": "[T]", "think_close": "[/T]", "think_padding": ""}
            )
        }
    )
    parsed = parse_student_completion(own, "[T]A[/T]\n\nB")
    assert (parsed.think, parsed.solution, parsed.state) == ("A", "B", "closed")


plain = st.text(st.characters(exclude_characters="<", exclude_categories=["Cs"]), max_size=30)


@given(format=st.sampled_from([STRATOS, R1]), think=plain, solution=plain)
def test_what_is_rendered_is_read_back(format: ConversationFormat, think: str, solution: str) -> None:
    content = build_student_messages(format, "Q", think, solution)[-1]["content"]
    parsed = parse_student_completion(format, content)
    assert parsed.think == think
    if format is STRATOS:
        assert parsed.solution == solution
    else:
        assert (parsed.solution or "") == solution.strip()
    assert parsed.state == ("closed" if think.strip() else "empty")


@given(think=st.text(max_size=40), rest=st.text(max_size=10))
def test_a_closed_explanation_is_never_altered(think: str, rest: str) -> None:
    parsed = parse_teacher_completion(STRATOS, think + CLOSE + rest)
    assert parsed.think == think


def read_traces(shared_data: Path) -> list[dict[str, Any]]:
    lines = (shared_data / "skyt1_27b_math500.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_real_traces(shared_data: Path) -> None:
    rows = read_traces(shared_data)
    parsed = [parse_student_completion(STRATOS, row["completion"]) for row in rows]
    assert Counter(p.state for p in parsed) == {"missing_open": 212, "closed": 194, "missing_close": 94}
    assert sum(p.think is None for p in parsed) == 210, "two lack the opening tag alone"
    assert sum(p.state == "closed" and not p.solution_closed for p in parsed) == 16
    for row, trace in zip(rows, parsed, strict=True):
        if trace.think is not None:
            assert trace.think in row["completion"]
            assert trace.think.strip()
            assert "<|" not in trace.think
