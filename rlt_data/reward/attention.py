"""Attention over a packed sequence: each segment sees its prefix and itself, nothing else.

Query heads that share a key-value head are stacked into one matrix product; queries go in blocks, so the
scores held are [key-value heads, heads per key-value head * block, keys], never [length, length].
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlt_data.reward.attention_cpu import attend_blocks
from rlt_data.reward.packing import Pack

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
    """What the attention function has to know about the sequence that it sees."""

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
    applied. `window` limits how far back a token sees, itself included. Returns [tokens, heads, head size].
    """
    heads, tokens, size = query.shape
    groups = key.shape[0]
    pack, store = context.pack, context.store
    for number in pack.kept:
        if number in pack.own:
            segment = pack.own[number]
            part = slice(segment.start, segment.start + segment.length)
            store.kept[number, layer] = (key[:, part].clone(), value[:, part].clone())
    output = query.new_empty(tokens, groups, heads // groups, value.shape[-1])
    fast = query.device.type == "cpu" and window is None and not softcap
    grouped = query.view(groups, heads // groups, tokens, size)
    if fast:
        # [groups, tokens, stack, size]: a block of tokens of one group is one contiguous matrix.
        grouped = grouped.transpose(1, 2).contiguous().mul_(scaling)
        key, value = key.contiguous(), value.contiguous()
    for segment in pack.segments:
        part = slice(segment.start, segment.start + segment.length)
        keys, values = key[:, part], value[:, part]
        if segment.prefix is not None:
            keys, values = _prepend_prefix(keys, values, key, value, context, segment.prefix, layer)
        if fast:
            attend_blocks(grouped[:, part], keys, values, output[part])
        else:
            attended = _attend_segment(grouped[:, :, part], keys, values, scaling, window, softcap)
            output[part] = attended.permute(2, 0, 1, 3)
    return output.view(tokens, heads, -1)


def _prepend_prefix(
    keys: Tensor,
    values: Tensor,
    key: Tensor,
    value: Tensor,
    context: PackedContext,
    prefix: int,
    layer: int,
) -> tuple[Tensor, Tensor]:
    own = context.pack.own.get(prefix)
    if own is not None:
        part = slice(own.start, own.start + own.length)
        before = (key[:, part], value[:, part])
    else:
        before = context.store.kept[prefix, layer]
    return torch.cat((before[0], keys), dim=1), torch.cat((before[1], values), dim=1)


def _attend_segment(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None, softcap: float | None
) -> Tensor:
    """query [groups, stack, length, size]; key, value [groups, past + length, size]."""
    groups, stack, length, size = query.shape
    past = key.shape[1] - length
    output = query.new_empty(groups, stack, length, value.shape[-1])
    for begin in range(0, length, BLOCK):
        end = min(begin + BLOCK, length)
        seen = past + end
        first = max(0, past + begin - window + 1) if window else 0
        block = (query[:, :, begin:end] * scaling).reshape(groups, stack * (end - begin), size)
        scores = torch.bmm(block, key[:, first:seen].transpose(1, 2))
        if softcap:
            scores = torch.tanh(scores / softcap) * softcap
        scores = scores.view(groups, stack, end - begin, seen - first)
        hidden = _hide(past + begin, past + end, first, window, query.device)
        scores = scores.masked_fill(hidden, float("-inf"))
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
        mixed = torch.bmm(weights.view(groups, stack * (end - begin), seen - first), value[:, first:seen])
        output[:, :, begin:end] = mixed.view(groups, stack, end - begin, -1)
    return output


def _hide(begin: int, end: int, first: int, window: int | None, device: torch.device) -> Tensor:
    """Which keys [first, end) each query [begin, end) must not see: [queries, keys]."""
    queries = torch.arange(begin, end, device=device)[:, None]
    keys = torch.arange(first, end, device=device)[None, :]
    hidden = keys > queries
    return hidden | (keys <= queries - window) if window else hidden
