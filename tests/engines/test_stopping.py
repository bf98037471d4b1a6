"""Stop texts are found across tokens, and completions are decoded exactly."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import build_tokenizer

from rlt_data.engines.stopping import CompletionReader

TAG = "<|end_of_explanation|>"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@cache
def build_cached() -> Any:
    """Hypothesis accepts no function-scoped fixtures, so this is cached by hand."""
    return build_tokenizer()


@pytest.fixture
def tokenizer() -> Any:
    return build_cached()


def encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids)


@settings(max_examples=150, deadline=None)
@given(before=TEXT, after=TEXT, tag=st.sampled_from([TAG, "</think>", "終わり", "\r\n\r\n"]))
def test_text_is_truncated_after_the_first_stop(before: str, after: str, tag: str) -> None:
    tokenizer = build_cached()
    reader = CompletionReader(tokenizer, (tag,))
    whole = before + tag + after
    ids = encode(tokenizer, whole)
    expected = whole[: whole.index(tag) + len(tag)]
    text, needed, stopped = reader.truncate(ids, ids[0])
    assert stopped
    assert text == expected
    assert reader.decode(ids[:needed], ids[0]).startswith(expected)
    assert not reader.decode(ids[: needed - 1], ids[0]).startswith(expected)
    ends = [count for count in range(1, len(ids) + 1) if reader.ends_here(ids[:count])]
    assert ends[0] == needed


@settings(max_examples=100, deadline=None)
@given(TEXT, st.sampled_from([TAG, "<|im_start|>", "</think>", "  \n", ""]))
def test_text_is_decoded_exactly(text: str, inner: str) -> None:
    tokenizer = build_cached()
    whole = f"{text}{inner}{text}"
    ids = encode(tokenizer, whole)
    reader = CompletionReader(tokenizer, ())
    assert reader.truncate(ids, 5) == (whole, len(ids), False)


def test_tag_spans_tokens(tokenizer: Any) -> None:
    ids = encode(tokenizer, f"so she had 24 dollars{TAG}")
    assert len(encode(tokenizer, TAG)) > 5
    reader = CompletionReader(tokenizer, (TAG,))
    assert [reader.ends_here(ids[:count]) for count in range(1, len(ids) + 1)] == [
        *[False] * (len(ids) - 1),
        True,
    ]


def test_a_token_may_extend_beyond_the_stop_text(tokenizer: Any) -> None:
    ids = encode(tokenizer, " dollars")
    assert len(ids) == 1
    text, needed, stopped = CompletionReader(tokenizer, (" doll",)).truncate(ids, 5)
    assert (text, needed, stopped) == (" doll", 1, True)


def test_several_stops_and_none(tokenizer: Any) -> None:
    ids = encode(tokenizer, "one two three")
    assert CompletionReader(tokenizer, ("three", "tw")).truncate(ids, 5)[0] == "one tw"
    assert not CompletionReader(tokenizer, ()).ends_here(ids)


def test_a_leading_space_survives_tokenizers_that_drop_it() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"▁hello": 0, "▁world": 1, "?": 2}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    reader = CompletionReader(PreTrainedTokenizerFast(tokenizer_object=backend), ())
    assert backend.decode([1]) == "world"
    assert reader.decode([1], 0) == " world"
