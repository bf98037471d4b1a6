from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rlt_data.errors import ModelError
from rlt_data.formats import find_control_token, load_built_in, render_student_text, require_end_token

STRATOS = load_built_in("stratos")


def test_the_end_token_is_the_one_that_the_template_writes(tokenizer: Any) -> None:
    assert require_end_token(STRATOS, tokenizer) == "<|im_end|>"
    text = render_student_text(STRATOS, tokenizer, "Q", "T", "S").text
    assert tokenizer(text, add_special_tokens=False)["input_ids"][-1] == tokenizer.eos_token_id


def test_a_turn_that_ends_with_another_token_needs_the_generation_configuration(
    make_tokenizer: Callable[..., Any],
) -> None:
    """Llama 3 and Gemma end a turn with a token that is not always the tokenizer's own end token."""
    other = make_tokenizer(extra=("<|eot|>",))
    other.chat_template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<|eot|>{% endfor %}"
    with pytest.raises(ModelError, match=r"<\|eot\|>', which is not an end token"):
        require_end_token(STRATOS, other)
    assert require_end_token(STRATOS, other, (other.convert_tokens_to_ids("<|eot|>"),)) == "<|eot|>"


def test_a_template_that_ends_no_turn_is_refused(make_tokenizer: Callable[..., Any]) -> None:
    endless = make_tokenizer("{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}")
    with pytest.raises(ModelError, match="not an end token"):
        require_end_token(STRATOS, endless)


def test_control_tokens_are_found_in_a_text(tokenizer: Any) -> None:
    assert find_control_token(tokenizer, "one <|im_start|> two <|im_end|>") == "<|im_start|>"
    assert find_control_token(tokenizer, "<|begin_of_thought|> is text to this tokenizer") is None
    assert find_control_token(tokenizer, "") is None


def test_a_token_that_was_added_later_counts(make_tokenizer: Callable[..., Any]) -> None:
    growing = make_tokenizer()
    assert find_control_token(growing, "a <stop> b") is None
    growing.add_special_tokens({"additional_special_tokens": ["<stop>"]})
    assert find_control_token(growing, "a <stop> b") == "<stop>"
    growing.add_tokens(["<plain>"])
    assert find_control_token(growing, "a <plain> b") is None
