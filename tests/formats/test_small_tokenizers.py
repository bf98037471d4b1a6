"""Laws of rendering and spans, under tokenizers and chat templates that each do one odd thing."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from formats.make_tokenizers import DEFAULT_SYSTEM, FOLDER, TEMPLATES, build
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_models import PUBLISHED_NAMES, SMALL_NAMES, TokenizerModels

from rlt_data.formats import (
    BUILT_IN,
    ConversationFormat,
    EncodedText,
    build_student_messages,
    encode_texts,
    load_built_in,
    render_student_prompt,
    render_student_text,
    render_teacher_prompt,
    render_teacher_text,
    require_end_token,
    select_token_span,
)

ALL = [load_built_in(name) for name in BUILT_IN]
STRATOS, R1 = load_built_in("stratos"), load_built_in("r1")
PIECES = [
    "<think>", "</think>", "<|ast|>", "</s>", "<s>", " the", "12", "1", "\n\n", "\n", "  ", ".", ">", "\t",
    "e\u0301", "\u4e2d\u6587", "\U0001f600", "\\boxed{7}", "{think}",
]  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=6)), max_size=8).map("".join)


@pytest.mark.parametrize("name", SMALL_NAMES)
def test_the_committed_files_are_those_that_the_script_makes(name: str) -> None:
    assert sorted(TEMPLATES) == SMALL_NAMES
    for file, text in build(name).items():
        assert (FOLDER / name / file).read_text(encoding="utf-8") == text, (
            "python tests/formats/make_tokenizers.py"
        )


def check_spans(tokenizer: Any, text: str, spans: Any, expected: dict[str, str]) -> EncodedText:
    """Assert that spans hold the expected texts, and that a span's tokens are those wholly inside."""
    encoded = encode_texts(tokenizer, [text])[0]
    covered = 0
    for first, last in encoded.offsets:
        # Qwen's normalizer composes letter and accent, and its offset is the letter's.
        missed = text[covered:first]
        assert all(unicodedata.combining(character) for character in missed), missed
        covered = max(covered, last)
    assert covered == len(text)
    for name, part in expected.items():
        begin, end = spans[name]
        assert text[begin:end] == part
        selected = select_token_span(encoded.offsets, (begin, end))
        for i, (first, last) in enumerate(encoded.offsets):
            assert (i in selected) == (begin <= first < last <= end)
    return encoded


@pytest.mark.parametrize("format", ALL, ids=lambda format: format.name)
@pytest.mark.parametrize("name", SMALL_NAMES)
@settings(max_examples=25, deadline=None)
@given(question=texts, think=texts, solution=texts)
def test_student_texts_hold_every_part_and_their_spans_hold_nothing_else(
    tokenizer_models: TokenizerModels,
    name: str,
    format: ConversationFormat,
    question: str,
    think: str,
    solution: str,
) -> None:
    tokenizer = tokenizer_models.load(name)
    rendered = render_student_text(format, tokenizer, question, think, solution)
    expected = {"question": question, "think": think, "solution": solution}
    encoded = check_spans(tokenizer, rendered.text, rendered.spans, expected)
    prompt = render_student_prompt(format, tokenizer, question)
    completion = build_student_messages(format, question, think, solution)[-1]["content"]
    assert rendered.text == prompt.text + completion + "</s>"
    assert rendered.spans["prompt"] == (0, len(prompt.text))
    assert prompt.text.startswith("<s>")
    assert format.student.system in prompt.text
    assert encoded.token_ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(encoded.token_ids) == rendered.text


@pytest.mark.parametrize("format", ALL, ids=lambda format: format.name)
@pytest.mark.parametrize("name", SMALL_NAMES)
@settings(max_examples=10, deadline=None)
@given(question=texts, think=texts, solution=texts)
def test_teacher_texts_are_prompt_explanation_and_closing(
    tokenizer_models: TokenizerModels,
    name: str,
    format: ConversationFormat,
    question: str,
    think: str,
    solution: str,
) -> None:
    tokenizer = tokenizer_models.load(name)
    prompt = render_teacher_prompt(format, tokenizer, question, solution)
    rendered = render_teacher_text(format, tokenizer, question, solution, think, closing=format.teacher.close)
    assert rendered.text == prompt.text + think + format.teacher.close
    expected = {"question": question, "solution": solution, "think": think}
    check_spans(tokenizer, rendered.text, rendered.spans, expected)
    assert format.teacher.system in prompt.text


@pytest.mark.parametrize("name", SMALL_NAMES)
def test_every_small_template_ends_a_turn_with_the_end_token(
    tokenizer_models: TokenizerModels, name: str
) -> None:
    for format in ALL:
        assert require_end_token(format, tokenizer_models.load(name)) == "</s>"


def test_a_default_system_prompt_is_in_the_prompt_and_in_no_scored_span(
    tokenizer_models: TokenizerModels,
) -> None:
    tokenizer = tokenizer_models.load("adds_default_system")
    rendered = render_student_text(R1, tokenizer, "Q", "T", "S")
    assert rendered.text == f"<s><|sys|>{DEFAULT_SYSTEM}</s><|usr|>Q</s><|ast|><think>\nT</think>\n\nS</s>"
    begin = rendered.text.index(DEFAULT_SYSTEM)
    assert rendered.spans["prompt"][0] <= begin < begin + len(DEFAULT_SYSTEM) < rendered.spans["prompt"][1]
    for part in ("question", "think", "solution", "assistant"):
        assert rendered.spans[part][0] >= begin + len(DEFAULT_SYSTEM)
    assert DEFAULT_SYSTEM not in render_student_text(STRATOS, tokenizer, "Q", "T", "S").text


@pytest.mark.parametrize("name", ["opens_thinking", "always_opens_thinking", "adds_empty_thinking"])
def test_thinking_opens_once(tokenizer_models: TokenizerModels, name: str) -> None:
    tokenizer = tokenizer_models.load(name)
    assert render_student_text(R1, tokenizer, "Q", "T", "S").text == (
        "<s><|usr|>Q</s><|ast|><think>\nT</think>\n\nS</s>"
    )
    assert "think>" not in render_student_text(STRATOS, tokenizer, "Q", "T", "S").text


@pytest.mark.parametrize("format", ALL, ids=lambda format: format.name)
@pytest.mark.parametrize("name", PUBLISHED_NAMES)
def test_published_tokenizers_hold_the_same_laws(
    tokenizer_models: TokenizerModels, name: str, format: ConversationFormat
) -> None:
    tokenizer = tokenizer_models.load(name)
    for question, think, solution in [
        ("What is 3 + 4?", "First 3,\nthen 4 more: 7.\n", "The answer is \\boxed{7}."),
        (" \u4e2d\u6587?\n", "</think> a \U0001f600 <think>\n\n.", "e\u0301 <|im_end|> "),
        ("Q", "\n\n  1234567\n", "1234"),
    ]:
        rendered = render_student_text(format, tokenizer, question, think, solution)
        expected = {"question": question, "think": think, "solution": solution}
        encoded = check_spans(tokenizer, rendered.text, rendered.spans, expected)
        assert encoded.token_ids[-1] == tokenizer.eos_token_id
        prompt = render_teacher_prompt(format, tokenizer, question, solution)
        written = render_teacher_text(
            format, tokenizer, question, solution, think, closing=format.teacher.close
        )
        assert written.text == prompt.text + think + format.teacher.close
        check_spans(tokenizer, written.text, written.spans, expected)
