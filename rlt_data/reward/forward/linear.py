"""Matrix products: oneDNN's for float32 on a CPU where torch has it, torch's own elsewhere.

For float32 torch multiplies through MKL, which on non-Intel processors reaches about half the rate of
oneDNN. The operator is private to torch, so it is used only if a check finds it and its result is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def apply_linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows [..., inputs] @ weight [outputs, inputs].T + bias [outputs], in the rows' dtype.

    `weight` may be a transposed view of a contiguous matrix, but no other strided view.
    """
    if rows.dtype is torch.float32 and weight.dtype is torch.float32 and _fits(rows, weight):
        result: Tensor = _find_operator()(rows, weight, bias, "none", [], "")
        return result
    return functional.linear(rows, weight, bias)


@contextmanager
def use_faster_linear(body: nn.Module) -> Iterator[None]:
    """Run the plain linear layers of a float32 model on a CPU by `apply_linear`, for inference only."""
    layers = [
        layer
        for layer in body.modules()
        if type(layer) is nn.Linear
        and layer.weight.dtype == torch.float32
        and layer.weight.device.type == "cpu"
    ]
    if not layers or not has_onednn():
        yield
        return
    for layer in layers:
        layer.forward = partial(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: nn.Linear, rows: Tensor) -> Tensor:
    return apply_linear(rows, layer.weight, layer.bias)


def _fits(rows: Tensor, weight: Tensor) -> bool:
    # With a strided view oneDNN falls back to reference code, a thousand times slower.
    return (
        rows.device.type == "cpu"
        and rows.numel() > 0
        and (weight.is_contiguous() or weight.t().is_contiguous())
        and has_onednn()
    )


@cache
def _find_operator() -> Any:
    # The overload itself: looking it up at every call costs as much as a small product.
    return torch.ops.mkldnn._linear_pointwise.default


@cache
def has_onednn() -> bool:
    """Whether torch has oneDNN's linear operator and its result is right."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    with torch.no_grad():
        rows = torch.linspace(-1.0, 1.0, 35).reshape(5, 7)
        weight = torch.linspace(2.0, -1.0, 21).reshape(3, 7)
        try:
            found = torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
        except (RuntimeError, TypeError):
            return False
        return bool(torch.allclose(found, rows @ weight.t(), atol=1e-5))
