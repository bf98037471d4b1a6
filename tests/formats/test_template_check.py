"""What a chat template drops, moves or adds is named before anything is scored or trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tokenizer_models import SMALL_NAMES, TokenizerModels

from rlt_data.errors import ModelError
from rlt_data.formats import Role, check_template, load_built_in, render_student_text

STRATOS, R1 = load_built_in("stratos"), load_built_in("r1")
OPENS = ["begins a generated answer with '<think>\\n', which the format does not write"]
OPENS_TEACHER = [
    "begins a generated answer with '<think>\\n'; the teacher's turn begins with the format's prefill"
]
ADDS = ["adds a system prompt of its own, 'You answer politely.', which is part of every prompt"]
REFUSES = [
    "refuses a system message (Only users and assistants speak.); the {role}'s system prompt is written in "
    "the user's turn, before the question"
]
DROPS = [
    "drops a system message; the {role}'s system prompt is written in the user's turn, before the question"
]
MOVES = ["moves the system prompt into the user's turn, before the question"]
TRIMS = ["trims white space at the edges of messages; rendered texts keep it"]
DATES = ["writes the current date; rendered texts always have 2024-07-26"]
CUTS = ["drops the thinking of a conversation"]
EMPTY = ["writes '<think>\\n\\n</think>\\n\\n' before an answer, besides the thinking tags of the format"]
TWICE = ["writes '<think>\\n' before an answer, besides the thinking tags of the format"]

# For each: stratos student, stratos teacher, r1 student, r1 teacher. r1 has no system prompt for the student.
EXPECTED: dict[str, tuple[list[str], list[str], list[str], list[str]]] = {
    "plain": ([], [], [], []),
    "strips_thinking": ([], [], CUTS, []),
    "adds_empty_thinking": (EMPTY, [], [], []),
    "refuses_system": (REFUSES, REFUSES, [], REFUSES),
    "drops_system": (DROPS, DROPS, [], DROPS),
    "adds_default_system": ([], [], ADDS, []),
    "system_in_user": (MOVES, MOVES, [], MOVES),
    "trims_content": (TRIMS, [], TRIMS, []),
    "opens_thinking": (OPENS, OPENS_TEACHER, [], OPENS_TEACHER),
    "always_opens_thinking": ([*OPENS, *TWICE], OPENS_TEACHER, TWICE, OPENS_TEACHER),
    "dates": (DATES, DATES, ["adds a system prompt of its own, '26 July 2024'", *DATES], DATES),
}


@pytest.mark.parametrize("name", SMALL_NAMES)
def test_what_a_template_does_is_named(tokenizer_models: TokenizerModels, name: str) -> None:
    tokenizer = tokenizer_models.load(name)
    cases: list[tuple[Any, Role]] = [
        (STRATOS, "student"),
        (STRATOS, "teacher"),
        (R1, "student"),
        (R1, "teacher"),
    ]
    for (format, role), expected in zip(cases, EXPECTED[name], strict=True):
        notes = check_template(format, tokenizer, role, name="Kim")
        starts = [f"the chat template of Kim {what.replace('{role}', role)}" for what in expected]
        assert len(notes) == len(starts), (format.name, role, notes)
        for note, start in zip(notes, starts, strict=True):
            assert note.startswith(start), (format.name, role)


def test_a_template_that_drops_the_thinking_of_messages_is_noted_with_what_to_train_on(
    tokenizer_models: TokenizerModels,
) -> None:
    tokenizer = tokenizer_models.load("strips_thinking")
    (note,) = check_template(R1, tokenizer, "student")
    assert note.endswith("so train on `text`")
    assert "why" in render_student_text(R1, tokenizer, "Q", "why", "S").text


@pytest.mark.parametrize(("name", "stratos", "r1"), [("qwen3", EMPTY, []), ("deepseek_v3", [], [])])
def test_published_templates(
    tokenizer_models: TokenizerModels, name: str, stratos: list[str], r1: list[str]
) -> None:
    tokenizer = tokenizer_models.load(name)
    for format, expected in ((STRATOS, stratos), (R1, r1)):
        notes = check_template(format, tokenizer, "student", name="Kim")
        assert len(notes) == len(expected)
        for note, what in zip(notes, expected, strict=True):
            assert note.startswith(f"the chat template of Kim {what}")
        assert check_template(format, tokenizer, "teacher") == []


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ m.content | upper }}", "drops or rewrites the user message"),
        ("{{ m.content if m.role != 'assistant' }}", "drops or rewrites the assistant message"),
        ("{{ m.content }}{{ m.content }}", "writes the user message 2 times"),
        ("{{ m.content }}{{ '<|begin_of_thought|>' if m.role == 'user' }}", "opens the thinking itself"),
        ("{{ messages[-loop.index].content }}", "writes the user message before the system message"),
    ],
)
def test_what_cannot_be_rendered_is_refused_with_the_part(
    make_tokenizer: Callable[..., Any], template: str, expected: str
) -> None:
    tokenizer = make_tokenizer(f"{{% for m in messages %}}{template}{{% endfor %}}")
    with pytest.raises(ModelError, match=expected) as caught:
        check_template(STRATOS, tokenizer, "student")
    assert "chat_template.jinja" in str(caught.value.remedy)
    with pytest.raises(ModelError, match=expected):
        render_student_text(STRATOS, tokenizer, "Q", "T", "S")
