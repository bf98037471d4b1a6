"""Linear layers: oneDNN's for float32 on a CPU where torch has it, torch's own elsewhere."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def apply_linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows [n, inputs] @ weight [outputs, inputs].T + bias [outputs]: [n, outputs], in the rows' dtype."""
    return functional.linear(rows, weight, bias)
