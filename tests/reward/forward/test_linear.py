"""Products through oneDNN equal torch's own, and layers are restored."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from rlt_data.reward.forward.linear import apply_linear, use_faster_linear

sizes = st.integers(1, 40)


@settings(max_examples=40, deadline=None)
@given(sizes, sizes, sizes, st.booleans(), st.sampled_from(["plain", "transposed", "strided"]))
def test_equals_the_plain_product(rows: int, inputs: int, outputs: int, bias: bool, layout: str) -> None:
    generator = torch.Generator().manual_seed(rows * 1600 + inputs * 40 + outputs)
    x = torch.randn(rows, inputs, generator=generator)
    weight = torch.randn(outputs, inputs, generator=generator)
    if layout == "transposed":
        weight = weight.t().contiguous().t()
    if layout == "strided":
        weight = torch.cat([weight, weight], dim=1)[:, :inputs]
    added = torch.randn(outputs, generator=generator) if bias else None
    found = apply_linear(x, weight, added)
    torch.testing.assert_close(found, functional.linear(x, weight, added), atol=1e-5, rtol=1e-5)


def test_no_rows() -> None:
    assert apply_linear(torch.empty(0, 4), torch.ones(3, 4)).shape == (0, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_layers_are_left_as_they_were(dtype: torch.dtype) -> None:
    body = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 4, bias=False)).to(dtype)
    x = torch.randn(3, 5, 8, dtype=dtype)
    with torch.no_grad():
        expected = body(x)
        with use_faster_linear(body):
            found = body(x)
    torch.testing.assert_close(found, expected)
    assert all("forward" not in vars(layer) for layer in body)
    body(x).sum().backward()
    assert all(parameter.grad is not None for parameter in body.parameters())


def test_layers_are_left_as_they_were_after_an_error() -> None:
    body = nn.Sequential(nn.Linear(8, 16))
    with pytest.raises(RuntimeError), torch.no_grad(), use_faster_linear(body):
        body(torch.randn(3, 7))
    assert "forward" not in vars(body[0])
