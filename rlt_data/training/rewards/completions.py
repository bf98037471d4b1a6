"""Completions as a trainer passes them to a reward: token ids, texts or messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def read_completions(
    tokenizer: Any, completions: Sequence[Any], completion_ids: Sequence[Sequence[int]] | None
) -> list[str]:
    """Read completions as text, from their token ids where they are given.

    TRL removes special tokens from the texts that it passes on, and with them tags that are special tokens
    of the tokenizer.
    """
    if completion_ids is None:
        return [text if isinstance(text, str) else str(text[-1]["content"]) for text in completions]
    return [decode_completion(tokenizer, ids) for ids in completion_ids]


def decode_completion(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """Decode a completion with all of its tokens except the end and padding tokens after it."""
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    written = list(token_ids)
    while written and written[-1] in ends:
        written.pop()
    return str(tokenizer.decode(written, skip_special_tokens=False))
