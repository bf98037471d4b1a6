from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.errors import ModelError
from rlt_data.formats import (
    ConversationFormat,
    compare_tokenizers,
    encode_texts,
    load_built_in,
    parse_teacher_completion,
    render_student_text,
    render_teacher_prompt,
    render_teacher_text,
    select_token_span,
)

STRATOS = load_built_in("stratos")


@pytest.mark.parametrize(
    ("offsets", "span", "expected"),
    [
        ([(0, 2), (2, 5), (5, 6)], (2, 6), range(1, 3)),
        ([(0, 3), (3, 5), (5, 7)], (2, 6), range(1, 2)),
        ([(0, 2), (2, 2), (2, 4), (4, 4)], (2, 4), range(2, 3)),
        ([(0, 1), (1, 2), (1, 2), (1, 2), (2, 3)], (1, 2), range(1, 4)),
        ([(0, 9)], (2, 4), range(0)),
        ([], (0, 4), range(0)),
        ([(0, 2)], (1, 1), range(0)),
    ],
    ids=[
        "inside",
        "straddling",
        "zero width",
        "bytes of one character",
        "one wide token",
        "none",
        "empty span",
    ],
)
def test_a_token_belongs_to_a_span_when_it_lies_wholly_inside(
    offsets: list[tuple[int, int]], span: tuple[int, int], expected: range
) -> None:
    assert select_token_span(offsets, span) == expected


@given(
    think=st.text(max_size=40),
    solution=st.text(max_size=20),
    question=st.text(st.characters(codec="utf-8"), max_size=20),
)
def test_tokens_of_a_span_decode_to_its_text_where_token_edges_meet_it(
    tokenizer: Any, question: str, think: str, solution: str
) -> None:
    rendered = render_student_text(STRATOS, tokenizer, question, think, solution)
    encoded = encode_texts(tokenizer, [rendered.text])[0]
    for part in ("think", "solution"):
        begin, end = rendered.spans[part]
        selected = select_token_span(encoded.offsets, (begin, end))
        if not selected:
            continue
        first, last = encoded.offsets[selected[0]][0], encoded.offsets[selected[-1]][1]
        assert begin <= first < last <= end
        assert tokenizer.decode([encoded.token_ids[i] for i in selected]) == rendered.text[first:last]
        # What is excluded at either edge is less than one token that reaches across it.
        edges = {offset for pair in encoded.offsets for offset in pair}
        assert (first == begin) == (begin in edges)
        assert (last == end) == (end in edges)


def test_nothing_is_added_when_a_rendered_text_is_tokenized(tokenizer: Any) -> None:
    encoded = encode_texts(tokenizer, ["<|im_start|>user\nhi<|im_end|>", ""])
    assert tokenizer.decode(encoded[0].token_ids) == "<|im_start|>user\nhi<|im_end|>"
    assert encoded[1].token_ids == []
    assert encode_texts(tokenizer, []) == []


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        is_fast = False
        name_or_path = "some/model"

    with pytest.raises(ModelError, match="no character offsets"):
        encode_texts(Slow(), ["text"])


def test_tokenizers_compare_by_what_ordinary_text_becomes(
    make_tokenizer: Callable[..., Any], tokenizer: Any
) -> None:
    assert compare_tokenizers(tokenizer, make_tokenizer()) is None
    added = make_tokenizer()
    added.add_tokens(["<extra>"])
    assert compare_tokenizers(tokenizer, added) is None
    reason = compare_tokenizers(tokenizer, make_tokenizer(extra=("<one more>",)))
    assert reason is not None
    assert "vocabulary" in reason


@pytest.fixture(scope="module")
def golden_cases(golden: Path) -> dict[str, Any]:
    cases: dict[str, Any] = json.loads((golden / "cases.json").read_text(encoding="utf-8"))
    return cases


@pytest.fixture(scope="module")
def golden_format(golden_cases: dict[str, Any]) -> ConversationFormat:
    prompts = golden_cases["parameters"]
    return STRATOS.model_copy(
        update={
            "teacher": STRATOS.teacher.model_copy(update={"system": prompts["teacher_system_prompt"]}),
            "student": STRATOS.student.model_copy(update={"system": prompts["student_system_prompt"]}),
        }
    )


def test_the_golden_texts_and_token_counts_match_exactly(
    golden: Path, golden_cases: dict[str, Any], golden_format: ConversationFormat
) -> None:
    from transformers import AutoTokenizer

    teacher = AutoTokenizer.from_pretrained(golden / "teacher")
    student = AutoTokenizer.from_pretrained(golden / "student")
    assert compare_tokenizers(teacher, student) is None
    assert len(golden_cases["cases"]) == 12
    for case in golden_cases["cases"]:
        question, solution, expected = case["question"], case["solution"], case["expected"]
        trace = parse_teacher_completion(golden_format, case["completion"])
        assert (trace.state == "missing_close") == (expected["format_penalty"] < 0)
        assert trace.think is not None
        prompt = render_teacher_prompt(golden_format, teacher, question, solution)
        assert prompt.text == case["teacher_prompt"]
        read = render_student_text(golden_format, student, question, trace.think, solution)
        assert read.text == case["student_text"]
        written = render_teacher_text(
            golden_format, teacher, question, solution, trace.think, closing=golden_format.teacher.close
        )
        student_offsets = encode_texts(student, [read.text])[0].offsets
        teacher_offsets = encode_texts(teacher, [written.text])[0].offsets
        assert len(select_token_span(student_offsets, read.spans["solution"])) == expected["solution_tokens"]
        assert len(select_token_span(student_offsets, read.spans["think"])) == expected["think_tokens"]
        assert len(select_token_span(teacher_offsets, written.spans["think"])) == expected["think_tokens"]


def test_a_tokenizer_that_normalizes_still_gives_spans_of_the_text_as_it_was(
    make_tokenizer: Callable[..., Any],
) -> None:
    """Qwen's tokenizer composes letters and accents first: one token may cover two characters."""
    from tokenizers import normalizers

    composing = make_tokenizer()
    composing.backend_tokenizer.normalizer = normalizers.NFC()
    think = "cafe\u0301 nai\u0308ve\n\n"
    rendered = render_student_text(STRATOS, composing, "Q", think, "S")
    encoded = encode_texts(composing, [rendered.text])[0]
    selected = select_token_span(encoded.offsets, rendered.spans["think"])
    covered = (encoded.offsets[selected[0]][0], encoded.offsets[selected[-1]][1])
    assert covered == rendered.spans["think"]
    decoded = composing.decode([encoded.token_ids[i] for i in selected])
    assert decoded == unicodedata.normalize("NFC", think)
    assert compare_tokenizers(make_tokenizer(), composing) == (
        "the two tokenizers differ in how they normalize text"
    )


def test_a_tokenizer_that_trims_its_spans_gives_whole_ones(make_tokenizer: Callable[..., Any]) -> None:
    """Llama 3's cuts the space before a word from its span, and leaves a token of spaces none at all."""
    from tokenizers import processors

    trimming = make_tokenizer()
    trimming.backend_tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), processors.ByteLevel(trim_offsets=True)]
    )
    for think in ("Add the   numbers  \n\n", "  ", " step\t"):
        rendered = render_student_text(STRATOS, trimming, "Q", think, "S")
        cut = trimming(rendered.text, add_special_tokens=False, return_offsets_mapping=True)
        encoded = encode_texts(trimming, [rendered.text])[0]
        assert encoded.token_ids == cut["input_ids"]
        assert encoded.offsets != cut["offset_mapping"]
        assert "".join(rendered.text[a:b] for a, b in encoded.offsets) == rendered.text
