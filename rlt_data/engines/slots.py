"""The key-value cache of the running sequences, one slot per sequence, and attention over it.

Each slot is filled from its own column 0, so a sequence's layout never depends on the others. Slots are
reused as sequences finish, and the buffers grow with the longest sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicCache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

GROUPED_ATTENTION = "rlt_data_grouped"
_COLUMN_STEP = 64


class SlotCache:
    """Keys and values of the running sequences, which occupy the first slots.

    Each layer holds two tensors `[slots, key-value heads, columns, head dimension]`. A model reads and
    writes them through `update`, as with a transformers cache.
    """

    def __init__(self, layers: int) -> None:
        self.columns = torch.empty(0, dtype=torch.int64)
        self.width = 0
        self._rows = torch.empty(0, dtype=torch.int64)
        self._slots = 0
        self._capacity = 0
        self._layers: list[list[torch.Tensor]] = [[] for _ in range(layers)]

    def fill(self, slots: Sequence[int], prefilled: DynamicCache, row: int, length: int) -> None:
        """Copy the first `length` columns of one prefilled prompt into each of `slots`."""
        self._reserve(max(slots) + 1, length, [(layer.keys, layer.values) for layer in prefilled.layers])
        for held, source in zip(self._layers, prefilled.layers, strict=True):
            for slot in slots:
                held[0][slot, :, :length] = source.keys[row, :, :length]
                held[1][slot, :, :length] = source.values[row, :, :length]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` columns of slot `source` to slot `target`."""
        with torch.inference_mode():
            for held in chain.from_iterable(self._layers):
                held[target, :, :length] = held[source, :, :length]

    def begin_step(self, lengths: Sequence[int], device: torch.device) -> None:
        """Prepare one step; `lengths` are the tokens that each active slot already holds."""
        self.width = max(lengths) + 1
        self._rows = torch.arange(len(lengths), device=device)
        self.columns = torch.tensor(lengths, dtype=torch.int64, device=device)

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store one token per active slot at its own column; return keys and values of the columns in use."""
        active = len(self._rows)
        self._reserve(active, self.width, [(keys, values)] * len(self._layers))
        held = self._layers[layer]
        held[0][self._rows, :, self.columns] = keys[:, :, 0]
        held[1][self._rows, :, self.columns] = values[:, :, 0]
        return held[0][:active, :, : self.width], held[1][:active, :, : self.width]

    def get_seq_length(self, layer: int = 0) -> int:
        """Return the columns in use before the current token."""
        return self.width - 1

    def _reserve(self, slots: int, columns: int, like: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Grow buffers that are too small by at least half, with the shapes and types of `like`."""
        if slots <= self._slots and columns <= self._capacity:
            return
        if slots > self._slots:
            self._slots = max(slots, self._slots + self._slots // 2)
        if columns > self._capacity:
            columns = max(columns, self._capacity + self._capacity // 2)
            self._capacity = -(-columns // _COLUMN_STEP) * _COLUMN_STEP
        self._layers = [
            [self._grow(held, pattern) for held, pattern in zip_longest(layer, patterns)]
            for layer, patterns in zip(self._layers, like, strict=True)
        ]

    def _grow(self, held: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
        """Copy into a larger buffer of zeros: a masked column must not contain NaN."""
        shape = (self._slots, like.shape[1], self._capacity, like.shape[3])
        grown = torch.zeros(shape, dtype=like.dtype, device=like.device)
        if held is not None:
            grown[: held.shape[0], :, : held.shape[2]] = held
        return grown


def attend_grouped(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Compute grouped-query attention of one token per row without repeating keys and values.

    The query heads that share a key-value head are passed as its query positions. `query` is
    `[rows, heads, 1, dimension]`, `key` and `value` `[rows, key-value heads, columns, dimension]`, the mask
    `[rows, 1, 1, columns]`. Longer queries (prompts) go to transformers' own function.
    """
    rows, heads, positions, dimension = query.shape
    if positions != 1 or kwargs.get("position_bias") is not None:
        prompt: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return prompt
    grouped = query.view(rows, key.shape[1], heads // key.shape[1], dimension)
    answer = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
    return answer.reshape(rows, 1, heads, value.shape[-1]), None


def use_grouped_attention(model: Any) -> None:
    """Switch a model that uses torch's scaled dot product attention to `attend_grouped`."""
    if model.config._attn_implementation == "sdpa" and getattr(model, "_supports_attention_backend", False):
        AttentionInterface.register(GROUPED_ATTENTION, attend_grouped)
        AttentionMaskInterface.register(GROUPED_ATTENTION, sdpa_mask)
        model.set_attn_implementation(GROUPED_ATTENTION)


def explain_unsupported_layers(model: Any) -> str | None:
    """Explain which layers cache something else than keys and values of every token; None where none does."""
    if getattr(model, "_is_stateful", False):
        return "it has a recurrent state"
    kinds = set(getattr(model.config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    return f"it has layers of type {', '.join(sorted(kinds))}" if kinds else None


def make_step_mask(config: Any, columns: torch.Tensor, width: int, dtype: torch.dtype) -> Any:
    """Make the attention mask of a one-token step: each row attends to its columns up to `columns[row]`.

    Returns a tensor `[rows, 1, 1, width]`, or one per layer type for a model whose layers differ: boolean,
    or additive in `dtype` for a model that adds masks to scores (eager attention).
    """
    positions = torch.arange(width, device=columns.device).unsqueeze(0)
    causal = positions <= columns.unsqueeze(1)
    window = getattr(config, "sliding_window", None)
    sliding = causal & (positions > columns.unsqueeze(1) - window) if window else causal

    def shape(mask: torch.Tensor) -> torch.Tensor:
        mask = mask[:, None, None, :]
        if config._attn_implementation != "eager":
            return mask
        zero = torch.zeros((), dtype=dtype, device=mask.device)
        return torch.where(mask, zero, torch.finfo(dtype).min)

    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds == {"full_attention"}:
        return shape(causal)
    masks = {"full_attention": causal, "sliding_attention": sliding}
    return {kind: shape(masks[kind]) for kind in kinds} if kinds else shape(sliding)
