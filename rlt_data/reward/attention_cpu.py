"""Blocked causal attention on a CPU: every product one matrix, through oneDNN where that is faster.

Both products of attention are linear layers: scores = queries @ keys.T, mixed = weights @ values. Shapes
are rounded so that few of them occur: oneDNN makes a kernel for each new one, and the allocator finds room
for equal sizes where it freed them.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from rlt_data.reward.linear import apply_linear

# Rows of a block (tokens times query heads of a group) that make a product fast, for short segments and for
# long ones; bounds of its tokens, since half of a block lies ahead; what fewer tokens are rounded up to.
ROWS, LONG_ROWS, LONG = 256, 512, 1024
LEAST_TOKENS, MOST_TOKENS = 64, 128
STEP = 32


def attend_blocks(query: Tensor, key: Tensor, value: Tensor, output: Tensor) -> None:
    """Causal attention of one segment, which stands at the end of its keys.

    query [groups, length, stack, size], scaled; key, value [groups, past + length, size]; `output`
    [length, groups, stack, size] is filled. Each query head of a group reads the same keys.
    """
    groups, length, stack, size = query.shape
    total = key.shape[1]
    past = total - length
    wanted = (LONG_ROWS if total >= LONG else ROWS) // stack
    blocks = _list_blocks(past, total, min(max(wanted, LEAST_TOKENS), MOST_TOKENS))
    for group in range(groups):
        keys, values = _pad(key[group], _round_keys(total)), _pad(value[group], _round_keys(total))
        for begin, end in blocks:
            tokens = end - begin
            seen = _round_keys(end)
            rows = query[group, begin - past : end - past].reshape(tokens * stack, size)
            scores = apply_linear(rows, keys[:seen])
            ahead = scores.view(tokens, stack, seen)[:, :, begin:]
            ahead += _hide_ahead(tokens, seen - begin, scores.dtype)[:, None, :]
            mixed = apply_linear(torch.softmax(scores, dim=-1), values[:seen].t())
            output[begin - past : end - past, group] = mixed.view(tokens, stack, -1)


def _list_blocks(past: int, total: int, block: int) -> list[tuple[int, int]]:
    """Blocks that cover the positions [past, total).

    All but the last have `block` tokens; the last is made up to a multiple of STEP, where there are as
    many, by tokens of the one before, which are computed twice.
    """
    blocks = [(begin, begin + block) for begin in range(past, total - block + 1, block)]
    covered = blocks[-1][1] if blocks else past
    if covered < total:
        tokens = -(-(total - covered) // STEP) * STEP
        blocks.append((max(past, total - tokens), total))
    return blocks


def _round_keys(count: int) -> int:
    """Round up to one of sixteen steps an octave, 32 apart at least."""
    step = max(32, 1 << max(0, (count - 1).bit_length() - 5))
    return -(-count // step) * step


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
