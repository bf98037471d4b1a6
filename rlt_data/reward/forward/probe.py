"""Choosing how to run a model: each mode is compared once with the model's own forward pass."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from rlt_data.errors import ModelError
from rlt_data.reward.forward.backbone import Mode, UnknownAttentionError, iterate_hidden
from rlt_data.reward.forward.head import LogitsHead, read_head, score_targets
from rlt_data.reward.forward.memory import TileSize
from rlt_data.reward.forward.packing import PackItem

_SHARED = 12
_LENGTH = 24
_SCORED = 16
# Largest difference of a token's log-probability, nats; half precision rounds differently on every path.
_TOLERANCE = {torch.float32: 2e-3, torch.float64: 2e-3}
_HALF_TOLERANCE = 0.5

_chosen: WeakKeyDictionary[Any, tuple[Mode, str | None]] = WeakKeyDictionary()

_NOTES = {
    "padded": "does not support packed attention; its texts are padded to one length instead, which takes "
    "about twice the time",
    "dense": "has an output layer that cannot be computed in tiles; its whole logits are computed text by "
    "text, which takes more memory and time",
}


def choose_mode(model: Any) -> tuple[Mode, str | None]:
    """Choose the fastest mode with the model's own results, and a note if it is not the fastest of all.

    The probe runs once for each model object. Raises `ModelError` if even the slowest mode differs.
    """
    if model not in _chosen:
        _chosen[model] = _probe(model)
    return _chosen[model]


def _probe(model: Any) -> tuple[Mode, str | None]:
    items = _make_items(model)
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            expected = [_score_whole(model, item) for item in items]
            if not all(scores.isfinite().all() for scores in expected):
                raise ModelError(
                    "the model computes log-probabilities that are not finite numbers",
                    where=type(model).__name__,
                    remedy="copy the model again; in float16, try dtype bfloat16 or float32",
                )
            modes: tuple[Mode, ...] = ("packed", "padded", "dense")
            for mode in modes:
                with suppress(
                    UnknownAttentionError, ModelError, RuntimeError, TypeError, ValueError, KeyError
                ):
                    found = _score_in_mode(model, items, mode)
                    if _agree(found, expected, model.dtype):
                        note = _NOTES.get(mode)
                        return mode, f"{type(model).__name__} {note}" if note else None
    finally:
        model.train(training)
    raise ModelError(
        "the model computes different log-probabilities for a text alone and for the same text in a batch",
        where=type(model).__name__,
        remedy="score through a server, or use another model",
    )


def _make_items(model: Any) -> list[PackItem]:
    """Three texts, two of which share a prefix, over tokens spread through the vocabulary."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = [(7 * i * i + 3 * i + 1) % vocabulary for i in range(4 * _LENGTH)]
    shared = ids[:_SHARED]
    rests = (ids[_SHARED:_LENGTH], ids[_LENGTH : 2 * _LENGTH - _SHARED - 3])
    texts = [*(shared + rest for rest in rests), ids[2 * _LENGTH : 3 * _LENGTH]]
    return [PackItem(index, text, _SCORED) for index, text in enumerate(texts)]


def _score_whole(model: Any, item: PackItem) -> Tensor:
    token_ids = torch.tensor([list(item.token_ids)], device=model.device)
    logits = model(input_ids=token_ids, attention_mask=torch.ones_like(token_ids), use_cache=False).logits
    logprobs = torch.log_softmax(logits[0, _SCORED - 1 : -1].float(), dim=-1)
    return logprobs.gather(1, token_ids[0, _SCORED:, None])[:, 0].cpu()


def _score_in_mode(model: Any, items: list[PackItem], mode: Mode) -> list[Tensor]:
    scores: dict[int, Tensor] = {}
    for hidden, spans in iterate_hidden(model, items, 3 * _LENGTH, mode=mode):
        head = LogitsHead(hidden.shape[-1], 1.0) if mode == "dense" else read_head(model, 1.0)
        for index, start, offset in spans:
            ids = items[index].token_ids
            first = start + _SCORED - 1 - offset
            rows = hidden[first : first + len(ids) - _SCORED]
            targets = torch.tensor(ids[_SCORED:], device=hidden.device)
            scores[index] = score_targets(rows, head, targets, TileSize()).cpu()
    return [scores[item.index] for item in items]


def _agree(found: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> bool:
    limit = _TOLERANCE.get(dtype, _HALF_TOLERANCE)
    gaps = torch.cat([(a - b).abs() for a, b in zip(found, expected, strict=True)])
    return bool(gaps.max() <= limit)
