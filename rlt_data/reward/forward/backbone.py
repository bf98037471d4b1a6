"""The body of a causal language model run over packed texts, or over padded ones if it cannot be packed.

Our attention function is registered with transformers by name and reads the layout of the pack from a
context variable, so every architecture that uses that interface runs packed, adapters included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, assert_never

import torch
from torch import Tensor, nn

from rlt_data.reward.forward.attention import PackedContext, PrefixStore, attend_packed
from rlt_data.reward.forward.linear import use_faster_linear
from rlt_data.reward.forward.packing import Pack, PackItem, build_packs

ATTENTION_NAME = "rlt_data_packed"
ROUND_TOKENS = 64

# packed: our attention over packed texts. padded: the model's own over padded texts. dense: whole logits of
# one text, for a model whose output layer is not a linear layer that can be computed in tiles.
Mode = Literal["packed", "padded", "dense"]

_context: ContextVar[PackedContext | None] = ContextVar("rlt_data_packed_context", default=None)


class UnknownAttentionError(Exception):
    """The architecture needs a feature that packed attention does not have."""


def find_body(model: Any) -> nn.Module:
    """Find the part of a causal language model between token ids and the last hidden state."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    body: nn.Module = base.get_decoder() if hasattr(base, "get_decoder") else base.base_model
    return body


def run_packed(model: Any, pack: Pack, store: PrefixStore) -> Tensor:
    """Hidden states after the final normalization for every token of a pack: [tokens, hidden]."""
    device = model.device
    # On a CPU a kernel is compiled, and kept, for every length: round lengths keep them few.
    padding = -len(pack.token_ids) % ROUND_TOKENS if device.type == "cpu" else 0
    token_ids = torch.tensor([pack.token_ids + [0] * padding], device=device)
    parts = [torch.arange(s.offset, s.offset + s.length) for s in pack.segments]
    positions = torch.cat([*parts, torch.zeros(padding, dtype=torch.long)])
    body = find_body(model)
    with _use_packed_attention(body, PackedContext(pack, store)), use_faster_linear(body):
        output = body(
            input_ids=token_ids, position_ids=positions[None].to(device), use_cache=False, return_dict=True
        )
    hidden: Tensor = output.last_hidden_state[0, : len(pack.token_ids)]
    return hidden


def run_padded(model: Any, items: Sequence[PackItem]) -> Tensor:
    """Hidden states of texts padded on the right to one length: [texts, tokens, hidden]."""
    longest = max(len(item.token_ids) for item in items)
    token_ids = torch.zeros(len(items), longest, dtype=torch.long)
    mask = torch.zeros(len(items), longest, dtype=torch.long)
    for row, item in enumerate(items):
        token_ids[row, : len(item.token_ids)] = torch.tensor(item.token_ids)
        mask[row, : len(item.token_ids)] = 1
    output = find_body(model)(
        input_ids=token_ids.to(model.device),
        attention_mask=mask.to(model.device),
        use_cache=False,
        return_dict=True,
    )
    hidden: Tensor = output.last_hidden_state
    return hidden


def run_dense(model: Any, item: PackItem) -> Tensor:
    """Logits of one text, from the token before its first scored token on: [tokens, vocabulary]."""
    token_ids = torch.tensor([list(item.token_ids)], device=model.device)
    output = model(
        input_ids=token_ids, attention_mask=torch.ones_like(token_ids), use_cache=False, return_dict=True
    )
    logits: Tensor = output.logits[0, item.first_scored - 1 :]
    return logits


def iterate_hidden(
    model: Any, items: Sequence[PackItem], limit: int, *, mode: Mode, share_prefixes: bool = True
) -> Iterator[tuple[Tensor, list[tuple[int, int, int]]]]:
    """Run texts in passes of about `limit` tokens.

    Yields hidden states [tokens, hidden] and, for each text in them, (index, start, offset): token t of
    that text, for t from `offset` on, is row start + t - offset. The rows of a text begin at or before the
    token before its first scored token.
    """
    match mode:
        case "packed":
            store = PrefixStore()
            for pack in build_packs(items, limit, share_prefixes=share_prefixes):
                hidden = run_packed(model, pack, store)
                store.keep_only(pack.kept)
                yield hidden, [(s.index, s.start, s.offset) for s in pack.segments if s.index is not None]
        case "padded":
            for batch in _gather_alike(items, limit):
                states = run_padded(model, batch)
                width = states.shape[1]
                spans = [(item.index, row * width, 0) for row, item in enumerate(batch)]
                yield states.reshape(-1, states.shape[-1]), spans
        case "dense":
            for item in items:
                yield run_dense(model, item), [(item.index, 0, item.first_scored - 1)]
        case _:
            assert_never(mode)


def _gather_alike(items: Sequence[PackItem], limit: int) -> Iterator[list[PackItem]]:
    """Batches of texts of similar length whose padded size is within `limit` tokens."""
    batch: list[PackItem] = []
    for item in sorted(items, key=lambda item: (-len(item.token_ids), item.index)):
        if batch and (len(batch) + 1) * len(batch[0].token_ids) > limit:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


@contextmanager
def _use_packed_attention(body: nn.Module, context: PackedContext) -> Iterator[None]:
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION_NAME, _attend)
    configs = _find_configs(body)
    previous = [config._attn_implementation for config in configs]
    token = _context.set(context)
    for config in configs:
        config._attn_implementation = ATTENTION_NAME
    try:
        yield
    finally:
        for config, name in zip(configs, previous, strict=True):
            config._attn_implementation = name
        _context.reset(token)


def _find_configs(body: nn.Module) -> list[Any]:
    configs: dict[int, Any] = {}
    for module in body.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "_attn_implementation"):
            configs[id(config)] = config
    return list(configs.values())


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **unknown: Any,
) -> tuple[Tensor, None]:
    """Attend with transformers' interface: [1, heads, tokens, size] in, [1, tokens, heads, size] out."""
    context = _context.get()
    unsupported = [name for name in ("s_aux", "position_bias", "head_mask") if unknown.get(name) is not None]
    if context is None or attention_mask is not None or unsupported:
        raise UnknownAttentionError(f"attention with {', '.join(unsupported) or 'a mask of its own'}")
    output = attend_packed(
        query[0],
        key[0],
        value[0],
        context,
        int(getattr(module, "layer_idx", 0) or 0),
        scaling if scaling is not None else query.shape[-1] ** -0.5,
        window=sliding_window,
        softcap=softcap,
    )
    return output[None], None
