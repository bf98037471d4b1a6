"""Blocked causal attention on a CPU: every product one matrix, through oneDNN where that is faster.

Both products of attention are linear layers: scores = queries @ keys.T, mixed = weights @ values. Shapes
are rounded so that few of them occur, since oneDNN compiles a kernel for each new one.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from rlt_data.reward.linear import apply_linear

# Tokens of a block; keys are rounded up to a multiple of KEYS and hidden where they lie ahead.
BLOCK = 64
LONG_BLOCK = 128
LONG = 1024
KEYS = 32


def attend_blocks(query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
    """Causal attention of one segment, which stands at the end of its keys.

    query [groups, length, stack, size], scaled; key, value [groups, past + length, size]; `output`
    [length, groups, stack, size] is filled. Each query head of a group reads the same keys.
    """
    groups, length, stack, size = query.shape
    total = key.shape[1]
    past = total - length
    block = LONG_BLOCK if total >= LONG else BLOCK
    rounded = -(-total // KEYS) * KEYS
    for group in range(groups):
        keys, values = _pad(key[group], rounded), _pad(value[group], rounded)
        for begin, end in _list_blocks(past, total, block):
            tokens = end - begin
            seen = -(-end // KEYS) * KEYS
            rows = query[group, begin - past : end - past].reshape(tokens * stack, size)
            scores = apply_linear(rows, keys[:seen])
            ahead = scores.view(tokens, stack, seen)[:, :, begin:]
            ahead += _hide_ahead(tokens, seen - begin, scores.dtype)[:, None, :]
            mixed = apply_linear(torch.softmax(scores, dim=-1), values[:seen].t())
            output[begin - past : end - past, group] = mixed.view(tokens, stack, -1)


def _list_blocks(past: int, total: int, block: int) -> list[tuple[int, int]]:
    """Blocks of positions [past, total) that end on multiples of `block`, as far as they can."""
    edges = [past, *range((past // block + 1) * block, total, block), total]
    return list(pairwise(edges))


def _pad(rows: Tensor, length: int) -> Tensor:
    if rows.shape[0] == length and rows.is_contiguous():
        return rows
    padded = rows.new_zeros(length, rows.shape[1])
    padded[: rows.shape[0]] = rows
    return padded


@cache
def _hide_ahead(tokens: int, keys: int, dtype: torch.dtype) -> Tensor:
    """Minus infinity where key j lies ahead of token i, else zero: [tokens, keys]."""
    return torch.full((tokens, keys), float("-inf"), dtype=dtype).triu(1)
