"""Blocked causal attention on a CPU: each product is one matrix product, through oneDNN where it is faster.

Both products of attention are linear layers: scores = queries @ keys.T, mixed = weights @ values. Shapes
are rounded so that there are few of them: oneDNN compiles a kernel for each new shape, which takes half a
millisecond and half a megabyte.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from rlt_data.reward.forward.linear import apply_linear

# Rows of a block (tokens times query heads of a group) at which products are fast, for short segments and
# for long ones. A block has 64 or 128 tokens: about half of its scores are masked, so more would be wasted.
ROWS, LONG_ROWS, LONG = 256, 512, 1024
LEAST_TOKENS, MOST_TOKENS = 64, 128
# Key counts are rounded up to one of eight steps per power of two, at least this far apart.
STEP = 64


def attend_blocks(query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
    """Causal attention of one segment, whose tokens are the last of its keys.

    query [groups, length + MOST_TOKENS, stack, size], scaled, with any values after its `length` tokens;
    key, value [groups, past + length, size]; `output` [length, groups, stack, size] is filled. All query
    heads of a group use the same keys.
    """
    groups, _, stack, size = query.shape
    total, length = key.shape[1], output.shape[0]
    past = total - length
    rounded = _round_keys(total)
    most = min(max((LONG_ROWS if total >= LONG else ROWS) // stack, LEAST_TOKENS), MOST_TOKENS)
    for group in range(groups):
        keys, values = _pad(key[group], rounded), _pad(value[group], rounded)
        for begin in range(0, length, most):
            # The last block extends past the segment; those rows are dropped.
            tokens = most if length - begin > LEAST_TOKENS else LEAST_TOKENS
            own = min(tokens, length - begin)
            seen = _round_keys(past + begin + own)
            scores = apply_linear(query[group, begin : begin + tokens].reshape(-1, size), keys[:seen])
            ahead = scores.view(tokens, stack, seen)[:, :, past + begin :]
            ahead += _hide_ahead(tokens, seen - past - begin, scores.dtype)[:, None, :]
            mixed = apply_linear(torch.softmax(scores, dim=-1), values[:seen].t())
            output[begin : begin + own, group] = mixed.view(tokens, stack, -1)[:own]


def _round_keys(count: int) -> int:
    step = max(STEP, 1 << max(0, (count - 1).bit_length() - 4))
    return -(-count // step) * step


def _pad(rows: Tensor, length: int) -> Tensor:
    if rows.shape[0] == length and rows.is_contiguous():
        return rows
    padded = rows.new_zeros(length, rows.shape[1])
    padded[: rows.shape[0]] = rows
    return padded


@cache
def _hide_ahead(tokens: int, keys: int, dtype: torch.dtype) -> Tensor:
    """Minus infinity where key j comes after token i, else zero: [tokens, keys]."""
    return torch.full((tokens, keys), float("-inf"), dtype=dtype).triu(1)
