"""Matrix products: oneDNN's for float32 on a CPU where torch has it, torch's own elsewhere.

For float32 torch multiplies through MKL, which on processors of other makers than its own reaches about
half of what oneDNN does. The operator is private to torch: it is used where a probe finds it and finds it
right, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Linear = Callable[[Tensor, Tensor], Tensor]


def apply_linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows [..., inputs] @ weight [outputs, inputs].T + bias [outputs], in the rows' dtype.

    `weight` may be a transposed view of a contiguous matrix, but no other strided view.
    """
    if rows.dtype == torch.float32 and weight.dtype == torch.float32 and _fits(rows, weight):
        result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
        return result
    return functional.linear(rows, weight, bias)


class FasterLinear(TorchFunctionMode):
    """While active, every linear layer goes through `apply_linear`; meant for inference only."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Replace the linear function, pass on the rest."""
        if func is functional.linear and not torch.is_grad_enabled():
            return apply_linear(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _fits(rows: Tensor, weight: Tensor) -> bool:
    # A strided view sends oneDNN to its reference code, a thousand times slower.
    return (
        rows.device.type == "cpu"
        and rows.numel() > 0
        and (weight.is_contiguous() or weight.t().is_contiguous())
        and has_onednn()
    )


@cache
def has_onednn() -> bool:
    """Whether torch has oneDNN's linear operator, and it gives what it should."""
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
