"""Each layout reads rows of its public schema, and is recognized by columns and values."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from rlt_data.errors import UsageError
from rlt_data.sources.files.parts import open_file
from rlt_data.sources.layouts import LAYOUTS, Example, Row, find_layout, recognize_layout, rename_columns
from rlt_data.sources.layouts.catalog import discover_layouts
from rlt_data.sources.rows import BadRow, RowError, SourceRow

TAGGED = (
    "<|begin_of_thought|>\n\nTwo and two.\n\n<|end_of_thought|>\n\n"
    "<|begin_of_solution|>\n\nIt is \\boxed{4}.\n\n<|end_of_solution|>"
)
QUESTION = "What is 2 + 2?"
TURNS = [{"from": "user", "value": QUESTION}, {"from": "assistant", "value": TAGGED}]

# A row of each public schema, by the layout that must be recognized.
PUBLIC: list[tuple[str, dict[str, Any]]] = [
    ("bespoke-stratos", {"system": "Think.", "conversations": TURNS}),
    ("sharegpt", {"conversations": TURNS}),
    (
        "messages",
        {"messages": [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": TAGGED}]},
    ),
    (
        "s1k",
        {
            "solution": "4",
            "question": QUESTION,
            "cot_type": "math",
            "source_type": "made up",
            "metadata": "{}",
            "cot": None,
            "thinking_trajectories": ["Two and two."],
            "attempt": "It is 4.",
        },
    ),
    (
        "s1k",
        {
            "solution": "4",
            "question": QUESTION,
            "cot_type": "math",
            "source_type": "made up",
            "metadata": "{}",
            "gemini_thinking_trajectory": "Hm.",
            "gemini_attempt": "5",
            "deepseek_thinking_trajectory": "Two and two.",
            "deepseek_attempt": "It is 4.",
            "gemini_grade": "No",
            "gemini_grade_reason": "wrong",
            "deepseek_grade": "Yes",
            "deepseek_grade_reason": "right",
        },
    ),
    (
        "openthoughts",
        {
            "problem": QUESTION,
            "deepseek_reasoning": "Two and two.",
            "deepseek_solution": "It is 4.",
            "ground_truth_solution": "4",
            "domain": "math",
            "source": "made up",
            "test_cases": None,
            "starter_code": None,
        },
    ),
    ("openthoughts", {"conversations": TURNS, "question": QUESTION, "source": "made up", "id": 1}),
    ("openthoughts", {"difficulty": 5, "source": "made up", "domain": "math", "conversations": TURNS}),
    (
        "openthoughts",
        {
            "source": "made up",
            "problem": QUESTION,
            "solution": "4",
            "messages": [],
            "system": "Think.",
            "conversations": TURNS,
            "generated_token_count": 9,
            "correct": True,
        },
    ),
    ("gsm8k", {"question": QUESTION, "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}),
    ("math", {"problem": QUESTION, "level": "Level 1", "type": "Algebra", "solution": "It is \\boxed{4}."}),
    ("math", {"source": "made up", "problem": QUESTION, "solution": "It is \\boxed{4}."}),
    (
        "math500",
        {
            "problem": QUESTION,
            "solution": "It is \\boxed{4}.",
            "answer": "4",
            "subject": "Algebra",
            "level": 1,
            "unique_id": "test/1.json",
        },
    ),
    ("aime", {"id": 60, "problem": QUESTION, "answer": "4"}),
    ("aime", {"ID": "2024-I-1", "Problem": QUESTION, "Solution": "It is 4.", "Answer": 4}),
    (
        "aime",
        {"id": 0, "problem": QUESTION, "solution": "It is 4.", "answer": "004", "url": "u", "year": "2024"},
    ),
    (
        "aime",
        {
            "ID": "1983-1",
            "Year": 1983,
            "Problem Number": 1,
            "Question": QUESTION,
            "Answer": "4",
            "Part": None,
        },
    ),
    (
        "gpqa",
        {
            "Question": QUESTION,
            "Correct Answer": "4",
            "Incorrect Answer 1": "3",
            "Incorrect Answer 2": "5",
            "Incorrect Answer 3": "22",
            "Explanation": "Count on.",
            "Subdomain": "Arithmetic",
            "Record ID": "rec1",
        },
    ),
    (
        "traces",
        {
            "idx": 0,
            "question": QUESTION,
            "answer": "4",
            "level": 1,
            "completion": TAGGED,
            "pred": "4",
            "correct": True,
        },
    ),
    ("reasoning-gym", {"question": QUESTION, "answer": "4", "metadata": {"source_dataset": "chain_sum"}}),
    ("plain", {"question": QUESTION, "solution": "It is 4."}),
    ("plain", {"question": QUESTION, "answer": 4}),
    ("plain", {"question": QUESTION, "solution": "It is 4.", "answer": "4", "trace": "Two and two."}),
]


def recognize(*rows: dict[str, Any], **options: Any) -> str | None:
    layout = recognize_layout(
        [SourceRow(n, row) for n, row in enumerate(rows)], where="made-up.jsonl", **options
    )
    return None if layout is None else layout.name


RIDDLES = """
from rlt_data.sources.layouts.base import Example, Layout


class Riddles(Layout):
    name = "riddles"
    about = "riddle, reply"
    signatures = (("riddle", "reply"),)

    def read(self, row):
        return Example(row.take_text("riddle"), answer=row.take_text("reply"), metadata=row.take_rest())
"""


def read(name: str, row: dict[str, Any]) -> Example:
    return find_layout(name).read(Row(row))


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


def test_the_real_files_are_recognized(shared_data: Path) -> None:
    expected = {
        "gsm8k_test.jsonl": "gsm8k",
        "math500.jsonl": "math500",
        "aime24.jsonl": "aime",
        "skyt1_27b_math500.jsonl": "traces",
    }
    for file, name in expected.items():
        layout = recognize_layout(open_file(shared_data / file).read(), where=file)
        assert layout is not None
        assert layout.name == name


def test_gsm8k_needs_its_mark_and_aime_its_integers() -> None:
    assert recognize({"question": "q", "answer": "no mark"}) == "plain"
    assert recognize({"id": 1, "problem": "p", "answer": "x + 1"}) == "math"


def test_columns_of_all_first_rows_count_and_bad_rows_do_not() -> None:
    rows = [BadRow(0, "malformed_json", "."), SourceRow(1, {"question": "q"}), SourceRow(2, {"answer": "a"})]
    layout = recognize_layout(rows, where="x")
    assert layout is not None
    assert layout.name == "plain"
    assert recognize_layout([BadRow(0, "malformed_json", ".")], where="x") is None


def test_unknown_columns_are_named_with_the_layouts_and_a_mapping_that_works() -> None:
    with pytest.raises(UsageError) as refused:
        recognize({"prompt": "p", "response": "r", "extra": 1})
    assert "prompt, response, extra" in refused.value.what
    remedy = refused.value.remedy or ""
    assert "--map question=prompt,solution=response" in remedy
    assert all(layout.name in remedy for layout in LAYOUTS)
    assert (
        recognize({"prompt": "p", "response": "r"}, mapping={"question": "prompt", "solution": "response"})
        == "plain"
    )


def test_the_nearest_layout_is_named_with_what_it_lacks() -> None:
    with pytest.raises(UsageError) as refused:
        recognize({"Problem": "p", "deepseek_reasoning": "r"})
    assert "nearest layout: openthoughts, which also needs deepseek_solution" in (refused.value.remedy or "")
    with pytest.raises(UsageError) as refused:
        recognize({f"c{number}": 1 for number in range(30)})
    assert "nearest layout" not in (refused.value.remedy or "")
    assert "c19 and 10 more" in refused.value.what


def test_a_layout_is_added_by_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "more_layouts"
    folder.mkdir()
    (folder / "__init__.py").write_text("", "utf-8")
    (folder / "riddles.py").write_text(RIDDLES, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    (layout,) = discover_layouts(importlib.import_module("more_layouts"))
    assert layout.name == "riddles"
    assert layout.read(Row({"riddle": "q", "reply": "a", "x": 1})) == Example(
        "q", answer="a", metadata={"x": 1}
    )


def test_layouts_that_fit_equally_are_not_chosen_between() -> None:
    row = {"messages": [], "conversations": []}
    with pytest.raises(
        UsageError, match="match messages and sharegpt equally well: messages, conversations"
    ) as refused:
        recognize(row)
    assert refused.value.remedy == "choose one: --layout messages or --layout sharegpt"
    assert recognize(row, layout="sharegpt") == "sharegpt"


def test_names_of_layouts_are_corrected() -> None:
    with pytest.raises(UsageError) as refused:
        find_layout("gsm8")
    assert "gsm8k" in (refused.value.remedy or "")
    assert find_layout("Bespoke_Stratos").name == "bespoke-stratos"


@pytest.mark.parametrize(
    ("mapping", "layout", "message"),
    [
        ({"qestion": "prompt"}, None, "'qestion'"),
        ({"trace": "prompt"}, "aime", "aime does not read"),
        ({"question": "promt"}, None, "no column 'promt'"),
        ({"question": "prompt", "solution": "prompt"}, None, "mapped twice"),
    ],
)
def test_an_invalid_mapping_is_refused(mapping: dict[str, str], layout: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recognize({"prompt": "p", "response": "r"}, mapping=mapping, layout=layout)


def test_mapped_columns_displace_those_of_the_same_name() -> None:
    renamed = rename_columns({"question": "old", "prompt": "new", "x": 1}, {"question": "prompt"})
    assert renamed == {"question": "new", "question.original": "old", "x": 1}
    assert rename_columns({"a": 1}, {}) == {"a": 1}


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
