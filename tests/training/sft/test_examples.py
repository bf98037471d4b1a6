"""Supervised examples: labels on what is to be written, the end token among them."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlt_data.errors import InputError, ModelError
from rlt_data.formats import load_format
from rlt_data.training.sft.checks.display import describe_example
from rlt_data.training.sft.checks.examples import check_example
from rlt_data.training.sft.examples import (
    IGNORED,
    Explained,
    build_student_examples,
    build_teacher_examples,
)

FORMAT = load_format("stratos")
ROW = Explained("State it: 4 - 1 =", "The answer is \\boxed{3}.", "First 4 - 1 = 3.")


def read_labels(example: Any, tokenizer: Any) -> str:
    return tokenizer.decode([label for label in example.labels if label != IGNORED])


@settings(deadline=None)
@given(think=st.text(alphabet=st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1))
def test_teacher_labels_are_explanation_closing_tag_and_end(tokenizer: Any, think: str) -> None:
    (example,) = build_teacher_examples(FORMAT, tokenizer, [ROW._replace(think=think)])
    assert read_labels(example, tokenizer) == think + "<|end_of_explanation|><|im_end|>"
    check_example(example, tokenizer, FORMAT, closing=FORMAT.teacher.close)
    unlabelled = [t for t, label in zip(example.token_ids, example.labels, strict=True) if label == IGNORED]
    assert tokenizer.decode(unlabelled).endswith("<|begin_of_explanation|>\n\n")
    assert all(
        label in (IGNORED, token) for token, label in zip(example.token_ids, example.labels, strict=True)
    )


def test_student_labels_are_the_whole_turn(tokenizer: Any) -> None:
    (example,) = build_student_examples(FORMAT, tokenizer, [ROW])
    assert read_labels(example, tokenizer) == (
        "<|begin_of_thought|>\n\nFirst 4 - 1 = 3.<|end_of_thought|>\n\n"
        "<|begin_of_solution|>The answer is \\boxed{3}.<|end_of_solution|><|im_end|>"
    )


def test_labels_that_would_not_teach_to_stop_are_refused(tokenizer: Any) -> None:
    (example,) = build_teacher_examples(FORMAT, tokenizer, [ROW])
    endless = replace(example, labels=[*example.labels[:-1], IGNORED])
    with pytest.raises(InputError, match="end token"):
        check_example(endless, tokenizer, FORMAT, closing=FORMAT.teacher.close)
    open_ended = replace(example, labels=[*example.labels[:-2], IGNORED, example.labels[-1]])
    with pytest.raises(InputError, match="closing tag"):
        check_example(open_ended, tokenizer, FORMAT, closing=FORMAT.teacher.close)
    first = next(i for i, label in enumerate(example.labels) if label != IGNORED)
    late = replace(example, labels=[*example.labels[:first], IGNORED, *example.labels[first + 1 :]])
    with pytest.raises(InputError, match="crosses the end of the prompt"):
        check_example(late, tokenizer, FORMAT, closing=FORMAT.teacher.close)


def test_the_end_token_is_the_one_that_the_template_writes(tokenizer: Any) -> None:
    """Where the tokenizer's own end token is another, as in Llama 3, the model would stop at neither."""
    other = deepcopy(tokenizer)
    other.eos_token = "<|endoftext|>"
    turn = other.convert_tokens_to_ids("<|im_end|>")
    with pytest.raises(ModelError, match="not an end token"):
        build_teacher_examples(FORMAT, other, [ROW])
    (example,) = build_teacher_examples(FORMAT, other, [ROW], end_token_ids=(turn,))
    assert example.labels[-1] == turn
    check_example(example, other, FORMAT, closing=FORMAT.teacher.close, end_token_ids=(turn,))


def test_a_token_over_the_edge_is_detected(tokenizer: Any) -> None:
    (example,) = build_teacher_examples(FORMAT, tokenizer, [ROW])
    assert example.is_aligned
    first = next(i for i, label in enumerate(example.labels) if label != IGNORED)
    begin, end = example.offsets[first]
    offsets = [*example.offsets[:first], (begin - 1, end), *example.offsets[first + 1 :]]
    assert not replace(example, offsets=offsets).is_aligned


def test_the_shown_example_marks_what_is_learned(tokenizer: Any) -> None:
    (example,) = build_teacher_examples(FORMAT, tokenizer, [ROW])
    shown = describe_example(example, limit=100_000)
    assert "⟦First 4 - 1 = 3.<|end_of_explanation|><|im_end|>⟧" in shown
    begin, end = example.rendered.spans["think"]
    assert example.rendered.text[begin:end] == ROW.think
    assert f"think {begin}:{end}" in shown
    assert f"{len(example.token_ids)} tokens" in shown
