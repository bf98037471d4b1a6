from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.errors import InputError, ModelError
from rlt_data.formats import (
    ConversationFormat,
    build_student_messages,
    build_teacher_messages,
    load_built_in,
    render_student_prompt,
    render_student_text,
    render_teacher_prompt,
    render_teacher_text,
)

STRATOS = load_built_in("stratos")
R1 = load_built_in("r1")

# Everything that trips a renderer: tags of formats and templates, template syntax, placeholders, line ends.
NASTY = [
    "<|begin_of_thought|>", "<|end_of_thought|>", "<|begin_of_solution|>", "<|end_of_solution|>",
    "<|end_of_explanation|>", "<think>", "</think>", "<|im_start|>assistant\n", "<|im_end|>", "{question}",
    "{solution}", "{think}", "{{ messages }}", "{% raw %}", "\r\n", "\x00", "\x1b[0m", "\u2028", "  ", "\n\n",
    "\U0001f600", "e\u0301", "\\boxed{1}",
]  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=8)), max_size=6).map("".join)
formats = st.sampled_from([STRATOS, R1])

SYSTEM_REFUSED = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "[{{ m['role'] }}]{{ m['content'] | trim }}<|im_end|>{% endfor %}"
)
SYSTEM_DROPPED = (
    "{% for m in messages %}{% if m['role'] != 'system' %}[{{ m['role'] }}]{{ m['content'] }}<|im_end|>"
    "{% endif %}{% endfor %}"
)
THINKING_CUT = (
    "{% for m in messages %}[{{ m['role'] }}]"
    "{{ m['content'].split('</think>')[-1] | trim }}<|im_end|>{% endfor %}"
)
THINKING_ADDED = (
    "{% for m in messages %}[{{ m['role'] }}]{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n"
    "{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}"
)
DATED = (
    "{% for m in messages %}[{{ m['role'] }}]"
    "{{ strftime_now('%Y') }} {{ m['content'] }}<|im_end|>{% endfor %}"
)
TWICE = "{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}"
LAST_ONLY = "{{ messages[-1]['content'] }}"


@given(format=formats, question=texts, think=texts, solution=texts)
def test_spans_of_the_student_text_give_back_the_texts(
    tokenizer: Any, format: ConversationFormat, question: str, think: str, solution: str
) -> None:
    rendered = render_student_text(format, tokenizer, question, think, solution)
    parts = {name: rendered.text[slice(*span)] for name, span in rendered.spans.items()}
    assert (parts["question"], parts["think"], parts["solution"]) == (question, think, solution)
    assert parts["assistant"] == build_student_messages(format, question, think, solution)[-1]["content"]
    assert parts["prompt"] == render_student_prompt(format, tokenizer, question).text
    assert rendered.text.endswith("<|im_end|>")


@given(format=formats, question=texts, think=texts, solution=texts)
def test_the_teacher_text_begins_with_the_prompt_and_ends_with_the_closing(
    tokenizer: Any, format: ConversationFormat, question: str, think: str, solution: str
) -> None:
    prompt = render_teacher_prompt(format, tokenizer, question, solution)
    rendered = render_teacher_text(format, tokenizer, question, solution, think, closing=format.teacher.close)
    assert rendered.text == prompt.text + think + format.teacher.close
    parts = {name: rendered.text[slice(*span)] for name, span in rendered.spans.items()}
    assert (parts["question"], parts["think"], parts["solution"]) == (question, think, solution)
    assert parts["prompt"] == prompt.text
    assert prompt.text.endswith(build_teacher_messages(format, question, solution)[-1]["content"])


def test_chatml_is_rendered_as_the_template_writes_it(tokenizer: Any) -> None:
    messages = build_student_messages(STRATOS, "Q", "T\n\n", "S")
    expected = tokenizer.apply_chat_template(messages, tokenize=False)
    assert render_student_text(STRATOS, tokenizer, "Q", "T\n\n", "S").text == expected.rstrip()


def test_a_template_without_system_role_gets_the_system_text_before_the_question(
    make_tokenizer: Callable[..., Any],
) -> None:
    for template in (SYSTEM_REFUSED, SYSTEM_DROPPED):
        rendered = render_student_text(STRATOS, make_tokenizer(template), "Q?", "T", "S")
        assert rendered.text.startswith(f"[user]{STRATOS.student.system}\n\nQ?<|im_end|>[assistant]<|begin")
        assert rendered.text[slice(*rendered.spans["question"])] == "Q?"


def test_a_template_that_cuts_thinking_or_trims_does_not_change_rendered_texts(
    make_tokenizer: Callable[..., Any],
) -> None:
    rendered = render_student_text(R1, make_tokenizer(THINKING_CUT), "Q", "why </think> so\n", " S ")
    assert rendered.text == "[user]Q<|im_end|>[assistant]<think>\nwhy </think> so\n</think>\n\n S <|im_end|>"


def test_an_empty_thinking_block_of_the_template_is_omitted(make_tokenizer: Callable[..., Any]) -> None:
    for format in (R1, STRATOS):
        rendered = render_student_text(format, make_tokenizer(THINKING_ADDED), "Q", "T", "S")
        assert f"[assistant]{format.student.think_open}" in rendered.text


def test_a_template_that_prints_the_day_gives_the_same_text_every_day(
    make_tokenizer: Callable[..., Any],
) -> None:
    assert "[user]2024 Q" in render_student_prompt(R1, make_tokenizer(DATED), "Q").text


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, "no chat template"),
        (TWICE, "2 times"),
        (LAST_ONLY, "drops or rewrites the user message"),
        ("{{ raise_exception('only images') }}", "only images"),
        ("{% for m in messages %}{{ m.content.parts[0] }}{% endfor %}", "template fails"),
    ],
)
def test_an_unusable_template_is_an_error_that_says_what_to_do(
    make_tokenizer: Callable[..., Any], template: str | None, expected: str
) -> None:
    with pytest.raises(ModelError, match=expected) as caught:
        render_student_prompt(R1, make_tokenizer(template), "Q")
    assert caught.value.remedy


def test_a_changed_template_is_noticed(make_tokenizer: Callable[..., Any]) -> None:
    changing = make_tokenizer()
    before = render_student_prompt(R1, changing, "Q").text
    changing.chat_template = THINKING_CUT
    assert render_student_prompt(R1, changing, "Q").text != before


@pytest.mark.parametrize("name", ["question", "think", "solution"])
def test_a_lone_surrogate_is_refused_with_its_position(tokenizer: Any, name: str) -> None:
    values = {"question": "Q", "think": "T", "solution": "S", name: "ab\ud800c"}
    with pytest.raises(InputError, match=r"lone surrogate U\+D800") as caught:
        render_student_text(STRATOS, tokenizer, **values)
    assert caught.value.where == f"character 2 of the {name}"


@pytest.mark.parametrize(
    "name", ["qwen2_5", "qwen3", "llama3_1", "gemma", "gemma3", "deepseek_r1_distill", "phi3_5"]
)
def test_real_templates_of_public_models(make_tokenizer: Callable[..., Any], name: str) -> None:
    trl = pytest.importorskip("trl")
    template = Path(trl.__file__).parent / "chat_templates" / f"{name}.jinja"
    if not template.is_file():
        pytest.skip(f"this version of trl has no {name}.jinja")
    real = make_tokenizer(template.read_text(encoding="utf-8"))
    real.bos_token = "<s>"
    for format in (STRATOS, R1):
        rendered = render_student_text(format, real, "Q?", "so </think>\n", "42")
        parts = {part: rendered.text[slice(*span)] for part, span in rendered.spans.items()}
        assert (parts["question"], parts["think"], parts["solution"]) == ("Q?", "so </think>\n", "42")
        assert rendered.text.count("<think>") == (format is R1)
        assert rendered.text[rendered.spans["assistant"][1] :].strip(), "the turn must end with a token"
        if format is STRATOS:
            assert format.student.system in rendered.text
