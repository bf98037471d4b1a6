"""Sizes from a memory budget: tokens of a pass, tile of logits, texts prepared together.

Memory here is memory beyond the weights. None of it grows with length times vocabulary: activations grow
with the tokens of a pass, logits with the tile, and tensors kept between passes with the hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlt_data.errors import UsageError


@dataclass(frozen=True)
class TileSize:
    """Rows and vocabulary entries of one tile of logits."""

    rows: int = 256
    entries: int = 2048


# Held by libraries, kernels and the allocator besides the tensors counted here, on a CPU.
OVERHEAD = 64 * 2**20
# A prepared text: token ids, character spans and results, as Python and NumPy objects.
_TOKEN_BYTES = 200
# Larger passes are no faster: matrix products are at their peak rate, and activations leave the cache.
_PACK_TOKENS = {"cpu": 1024, "cuda": 16384}
# Results come batch by batch, a few passes each, so that little is lost if a run is interrupted.
_BATCH_TOKENS = {"cpu": 16_384, "cuda": 131_072}
_TILES = (
    TileSize(2048, 8192),
    TileSize(256, 2048),
    TileSize(256, 1024),
    TileSize(64, 1024),
)


@dataclass(frozen=True)
class ModelShape:
    """The sizes that determine memory and time of one model, in elements; `element` in bytes."""

    hidden: int
    feed_forward: int
    heads: int
    key_value_heads: int
    head_size: int
    layers: int
    vocabulary: int
    body_parameters: int
    element: int

    def count_pass_bytes(self, tokens: int) -> int:
        """Activations of a pass: the widest layer's inputs, gates, products and attention heads."""
        heads = self.heads + 2 * self.key_value_heads
        return tokens * self.element * (8 * self.hidden + 4 * self.feed_forward + 3 * heads * self.head_size)

    def count_prefix_bytes(self, tokens: int) -> int:
        """Keys and values of one prefix in all layers."""
        return 2 * tokens * self.element * self.layers * self.key_value_heads * self.head_size


@dataclass(frozen=True)
class Sizes:
    """Tokens of a pass, tokens prepared together, and the tile of logits."""

    pack_tokens: int
    batch_tokens: int
    tile: TileSize


def read_shape(model: Any) -> ModelShape:
    """Read the shape of a loaded causal language model."""
    config = model.config.get_text_config()
    embedding = model.get_input_embeddings().weight
    vocabulary, hidden = int(embedding.shape[0]), int(config.hidden_size)
    heads = int(getattr(config, "num_attention_heads", None) or 1)
    output = model.get_output_embeddings()
    outside_body = embedding.numel()
    if output is not None and output.weight is not embedding:
        outside_body += output.weight.numel()
    return ModelShape(
        hidden=hidden,
        feed_forward=int(getattr(config, "intermediate_size", None) or 4 * hidden),
        heads=heads,
        key_value_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_size=int(getattr(config, "head_dim", None) or hidden // heads),
        layers=int(config.num_hidden_layers),
        vocabulary=vocabulary,
        body_parameters=sum(p.numel() for p in model.parameters()) - outside_body,
        element=embedding.element_size(),
    )


def choose_sizes(shapes: Sequence[ModelShape], *, budget: int | None, exact: bool, device: str) -> Sizes:
    """Choose the fastest sizes that fit `budget` bytes beyond the weights; None sets no limit.

    Raises `UsageError` if even the smallest do not fit.
    """
    kind = device.split(":")[0]
    best, batch_tokens = _PACK_TOKENS.get(kind, 4096), _BATCH_TOKENS.get(kind, 65_536)
    tiles = _TILES if kind == "cuda" else _TILES[1:]
    if budget is None:
        return Sizes(best, batch_tokens, tiles[0])
    passes = [best >> halvings for halvings in range(12) if best >> halvings >= 128]
    batches = [batch_tokens >> halvings for halvings in (0, 2, 4)]
    candidates = [Sizes(pack, batch, tile) for tile in tiles for pack in passes for batch in batches]
    for sizes in candidates:
        if count_working_bytes(shapes, sizes, exact=exact) <= budget:
            return sizes
    least = count_working_bytes(shapes, candidates[-1], exact=exact)
    raise UsageError(
        f"scoring with these models needs at least {least / 2**20:.0f} MiB beyond their weights",
        where=f"a memory budget of {budget / 2**20:.0f} MiB",
        remedy="raise --memory, or omit it",
    )


def count_working_bytes(
    shapes: Sequence[ModelShape], sizes: Sizes, *, exact: bool, longest: int = 0, prefix: int = 512
) -> int:
    """Estimate the peak beyond the weights; `longest` and `prefix` are text lengths in tokens."""
    tokens = max(sizes.pack_tokens, longest)
    passes = max(shape.count_pass_bytes(tokens) + shape.count_prefix_bytes(prefix) for shape in shapes)
    tile = 4 * sizes.tile.rows * sizes.tile.entries * (3 if exact else 2)
    tiles = max(-(-shape.vocabulary // sizes.tile.entries) for shape in shapes)
    sums = 4 * tokens * tiles * (3 if exact else 1)
    kept = sizes.batch_tokens * max(shape.hidden * shape.element for shape in shapes) if exact else 0
    return OVERHEAD + max(passes, tile + sums) + kept + sizes.batch_tokens * _TOKEN_BYTES
