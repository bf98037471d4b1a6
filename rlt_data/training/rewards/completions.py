"""Completions as a trainer hands them to a reward: token ids, or texts, or messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def read_completions(
    tokenizer: Any, completions: Sequence[Any], completion_ids: Sequence[Sequence[int]] | None
) -> list[str]:
    """Read completions as text, from their token ids where those are known.

    TRL drops special tokens from the texts that it hands over, and with them tags that a tokenizer counts
    among the special ones.
    """
    if completion_ids is None:
        return [text if isinstance(text, str) else str(text[-1]["content"]) for text in completions]
    return [decode_completion(tokenizer, ids) for ids in completion_ids]


def decode_completion(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """Decode a completion with every token in it but the end and padding tokens behind it."""
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    written = list(token_ids)
    while written and written[-1] in ends:
        written.pop()
    return str(tokenizer.decode(written, skip_special_tokens=False))
