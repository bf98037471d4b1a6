"""Completions as text: ends removed, everything else kept, special tokens too."""

from __future__ import annotations

from typing import Any

from rlt_data.training.rewards.completions import decode_completion, read_completions

TEXT = "First 1 + 1 = 2."


def test_trailing_end_and_padding_tokens_are_omitted(tokenizer: Any) -> None:
    ids = tokenizer(TEXT)["input_ids"]
    end, padding = tokenizer.eos_token_id, tokenizer.pad_token_id
    assert decode_completion(tokenizer, [*ids, end, padding, padding]) == TEXT
    assert decode_completion(tokenizer, [*ids, end, *ids]) == f"{TEXT}{tokenizer.eos_token}{TEXT}"
    assert decode_completion(tokenizer, [end, padding]) == ""


def test_special_tokens_within_are_kept(tokenizer: Any) -> None:
    tag = "<|im_start|>"
    assert tag in tokenizer.all_special_tokens
    ids = tokenizer(f"{tag}{TEXT}")["input_ids"]
    assert read_completions(tokenizer, [TEXT], [ids]) == [f"{tag}{TEXT}"]


def test_texts_and_messages_are_read_where_there_are_no_token_ids(tokenizer: Any) -> None:
    message = [{"role": "assistant", "content": TEXT}]
    assert read_completions(tokenizer, [TEXT, message], None) == [TEXT, TEXT]
