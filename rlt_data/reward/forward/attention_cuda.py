"""Attention over a packed sequence on a GPU: one flash kernel for all segments of a layer.

Used only on CUDA with half-precision tensors; a probe compares it with each model's own attention, and the
texts are padded instead if they disagree.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def attend_varlen(
    query: Tensor,
    keys: Sequence[Tensor],
    values: Sequence[Tensor],
    lengths: Sequence[int],
    scaling: float,
    window: int | None,
) -> Tensor:
    """Causal attention of consecutive segments, each at the end of its own keys.

    query [tokens, heads, size]; for each segment, keys and values [key-value heads, seen, size] and its
    number of tokens. `window` is how far back a token attends, itself included. Returns
    [tokens, heads, size].
    """
    from torch.nn.attention.varlen import varlen_attn

    seen = [key.shape[1] for key in keys]
    result: Tensor = varlen_attn(
        query,
        torch.cat([key.transpose(0, 1) for key in keys]),
        torch.cat([value.transpose(0, 1) for value in values]),
        _sum_lengths(lengths, query.device),
        _sum_lengths(seen, query.device),
        max(lengths),
        max(seen),
        scale=scaling,
        window_size=(window - 1 if window else -1, 0),
        enable_gqa=query.shape[1] != keys[0].shape[0],
    )
    return result


def _sum_lengths(lengths: Sequence[int], device: torch.device) -> Tensor:
    edges = [0]
    for length in lengths:
        edges.append(edges[-1] + length)
    return torch.tensor(edges, dtype=torch.int32, device=device)
