"""Packed attention against one dense mask over the same keys."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlt_data.reward.forward import attention
from rlt_data.reward.forward.attention import PackedContext, PrefixStore, attend_packed
from rlt_data.reward.forward.packing import Pack, PackItem, build_packs

HEADS, GROUPS, SIZE = 6, 2, 8


def attend_dense(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None, softcap: float | None
) -> Tensor:
    """One text: [heads, tokens, size] in, [tokens, heads, size] out, in float64."""
    key, value = (t.double().repeat_interleave(HEADS // GROUPS, 0) for t in (key, value))
    scores = query.double() @ key.transpose(1, 2) * scaling
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    position = torch.arange(query.shape[1])
    hidden = position[None, :] > position[:, None]
    if window:
        hidden |= position[None, :] <= position[:, None] - window
    weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
    return (weights @ value).transpose(0, 1)


def make_items(lengths: list[int], shared: int) -> list[PackItem]:
    return [
        PackItem(i, [*range(1000, 1000 + shared), *(i * 100 + t for t in range(length))], shared + 2)
        for i, length in enumerate(lengths)
    ]


def embed(tokens: list[int], positions: list[int], seed: int, heads: int) -> Tensor:
    """A vector for each token at its position: the same token at the same position is the same vector."""
    rows = []
    for token, position in zip(tokens, positions, strict=True):
        generator = torch.Generator().manual_seed(token * 7919 + position * 31 + seed)
        rows.append(torch.randn(heads, SIZE, generator=generator))
    return torch.stack(rows, dim=1)


def list_positions(pack: Pack) -> list[int]:
    return [s.offset + t for s in pack.segments for t in range(s.length)]


@pytest.mark.parametrize("limit", [45, 90, 4000])
@pytest.mark.parametrize(("window", "softcap"), [(None, None), (7, None), (None, 3.0), (40, 2.0)], ids=str)
def test_equals_dense_attention(limit: int, window: int | None, softcap: float | None) -> None:
    items = make_items([5, 70, 1, 33], shared=20)
    store = PrefixStore()
    seen = 0
    for pack in build_packs(items, limit):
        positions = list_positions(pack)
        query, key, value = (
            embed(pack.token_ids, positions, seed, heads)
            for seed, heads in ((1, HEADS), (2, GROUPS), (3, GROUPS))
        )
        found = attend_packed(
            query, key, value, PackedContext(pack, store), 0, 0.3, window=window, softcap=softcap
        )
        store.keep_only(pack.kept)
        for segment in pack.segments:
            if segment.index is None:
                continue
            tokens = list(items[segment.index].token_ids)
            positions = list(range(len(tokens)))
            whole = [embed(tokens, positions, s, h) for s, h in ((1, HEADS), (2, GROUPS), (3, GROUPS))]
            expected = attend_dense(*whole, 0.3, window, softcap)[segment.offset :]
            part = found[segment.start : segment.start + segment.length]
            torch.testing.assert_close(part.double(), expected, atol=1e-5, rtol=0)
            seen += 1
    assert seen == len(items)
    assert not store.kept


def test_the_path_of_other_devices_is_the_same() -> None:
    """torch's own attention with a lower-right causal mask, as used where oneDNN is not."""
    query, key, value = (torch.randn(h, n, SIZE) for h, n in ((HEADS, 5), (GROUPS, 9), (GROUPS, 9)))
    found = attention._attend_sdpa(query, key, value, 0.3)
    expected = attention._attend_masked(query, key, value, 0.3, None, None)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_long_segments_use_larger_blocks() -> None:
    items = make_items([1500], shared=0)
    pack = next(iter(build_packs(items, 4000)))
    positions = list_positions(pack)
    query, key, value = (
        embed(pack.token_ids, positions, seed, heads)
        for seed, heads in ((1, HEADS), (2, GROUPS), (3, GROUPS))
    )
    found = attend_packed(query, key, value, PackedContext(pack, PrefixStore()), 0, 0.3)
    expected = attend_dense(query, key, value, 0.3, None, None)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)
