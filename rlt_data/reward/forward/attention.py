"""Attention over a packed sequence: each segment attends to its prefixes and to itself only."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from rlt_data.reward.forward.attention_cpu import MOST_TOKENS, attend_blocks
from rlt_data.reward.forward.attention_cuda import attend_varlen
from rlt_data.reward.forward.packing import Pack, Segment

# Queries of one block on the general path.
BLOCK = 128


@dataclass
class PrefixStore:
    """Keys and values of prefixes by (prefix, layer): [key-value heads, tokens, head size] each."""

    kept: dict[tuple[int, int], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def keep_only(self, prefixes: set[int]) -> None:
        """Drop every prefix that no later pack needs."""
        for key in [key for key in self.kept if key[0] not in prefixes]:
            del self.kept[key]


@dataclass(frozen=True)
class PackedContext:
    """The layout of the sequence, for the attention function."""

    pack: Pack
    store: PrefixStore


def attend_packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    context: PackedContext,
    layer: int,
    scaling: float,
    *,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Attend within segments.

    query [heads, tokens, head size], key and value [key-value heads, tokens, head size], rotary embedding
    applied. `window` is how far back a token attends, itself included; `softcap` bounds the scores.
    Returns [tokens, heads, head size].
    """
    heads, tokens, _ = query.shape
    device = query.device.type
    segments = context.pack.segments
    _keep_prefixes(key, value, context, layer)
    plain = window is None and not softcap
    if device == "cpu" and plain:
        return _attend_on_cpu(query, key.contiguous(), value.contiguous(), context, layer, scaling)
    pairs = [_find_keys(key, value, context, segment, layer) for segment in segments]
    if device == "cuda" and query.dtype in (torch.float16, torch.bfloat16) and not softcap:
        keys, values = zip(*pairs, strict=True)
        lengths = [segment.length for segment in segments]
        return attend_varlen(query.transpose(0, 1), keys, values, lengths, scaling, window)
    output = query.new_zeros(tokens, heads, value.shape[-1])
    for segment, (keys, values) in zip(segments, pairs, strict=True):
        part = slice(segment.start, segment.start + segment.length)
        if plain:
            attended = _attend_sdpa(query[:, part], keys, values, scaling)
        else:
            attended = _attend_masked(query[:, part], keys, values, scaling, window, softcap)
        output[part] = attended.transpose(0, 1)
    return output


def _attend_on_cpu(
    query: Tensor, key: Tensor, value: Tensor, context: PackedContext, layer: int, scaling: float
) -> Tensor:
    heads, tokens, size = query.shape
    groups, stack = key.shape[0], heads // key.shape[0]
    # A block of tokens of one group is one contiguous matrix; blocks may reach beyond the last token.
    grouped = query.new_zeros(groups, tokens + MOST_TOKENS, stack, size)
    torch.mul(query.view(groups, stack, tokens, size).transpose(1, 2), scaling, out=grouped[:, :tokens])
    # Tokens outside every segment (padding) stay zero.
    output = query.new_zeros(tokens, groups, stack, value.shape[-1])
    for segment in context.pack.segments:
        keys, values = _find_keys(key, value, context, segment, layer)
        part = output[segment.start : segment.start + segment.length]
        attend_blocks(grouped[:, segment.start :], keys, values, part)
    return output.view(tokens, heads, -1)


def _keep_prefixes(key: Tensor, value: Tensor, context: PackedContext, layer: int) -> None:
    """Store the keys and values of the prefixes that later packs need."""
    for number in context.pack.kept:
        segment = context.pack.own.get(number)
        if segment is not None:
            part = slice(segment.start, segment.start + segment.length)
            context.store.kept[number, layer] = (key[:, part].clone(), value[:, part].clone())


def _find_keys(
    key: Tensor, value: Tensor, context: PackedContext, segment: Segment, layer: int
) -> tuple[Tensor, Tensor]:
    """Keys and values that a segment attends to: [key-value heads, past + length, size] each."""
    part = slice(segment.start, segment.start + segment.length)
    if not segment.prefixes:
        return key[:, part], value[:, part]
    pairs = [_find_prefix(key, value, context, prefix, layer) for prefix in segment.prefixes]
    pairs.append((key[:, part], value[:, part]))
    keys, values = zip(*pairs, strict=True)
    return torch.cat(keys, dim=1), torch.cat(values, dim=1)


def _find_prefix(
    key: Tensor, value: Tensor, context: PackedContext, prefix: int, layer: int
) -> tuple[Tensor, Tensor]:
    own = context.pack.own.get(prefix)
    if own is None:
        return context.store.kept[prefix, layer]
    part = slice(own.start, own.start + own.length)
    return key[:, part], value[:, part]


def _attend_sdpa(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Causal attention: query [heads, length, size] aligned with the last `length` keys and values."""
    from torch.nn.attention.bias import causal_lower_right

    length, seen = query.shape[1], key.shape[1]
    result: Tensor = functional.scaled_dot_product_attention(
        query[None],
        key[None],
        value[None],
        attn_mask=causal_lower_right(length, seen),
        scale=scaling,
        enable_gqa=query.shape[0] != key.shape[0],
    )[0]
    return result


def _attend_masked(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None, softcap: float | None
) -> Tensor:
    """As `_attend_sdpa`, with a window or a soft cap, one block of queries at a time."""
    heads, length, size = query.shape
    groups = key.shape[0]
    stack = heads // groups
    past = key.shape[1] - length
    grouped = query.view(groups, stack, length, size)
    output = query.new_empty(groups, stack, length, value.shape[-1])
    for begin in range(0, length, BLOCK):
        end = min(begin + BLOCK, length)
        seen = past + end
        first = max(0, past + begin - window + 1) if window else 0
        block = (grouped[:, :, begin:end] * scaling).reshape(groups, stack * (end - begin), size)
        scores = torch.bmm(block, key[:, first:seen].transpose(1, 2))
        if softcap:
            scores = torch.tanh(scores / softcap) * softcap
        scores = scores.view(groups, stack, end - begin, seen - first)
        hidden = _hide(past + begin, past + end, first, window, query.device)
        scores = scores.masked_fill(hidden, float("-inf"))
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
        mixed = torch.bmm(weights.view(groups, stack * (end - begin), seen - first), value[:, first:seen])
        output[:, :, begin:end] = mixed.view(groups, stack, end - begin, -1)
    return output.view(heads, length, -1)


def _hide(begin: int, end: int, first: int, window: int | None, device: torch.device) -> Tensor:
    """Mask the keys [first, end) that each query [begin, end) must not attend to: [queries, keys]."""
    queries = torch.arange(begin, end, device=device)[:, None]
    keys = torch.arange(first, end, device=device)[None, :]
    hidden = keys > queries
    return hidden | (keys <= queries - window) if window else hidden
