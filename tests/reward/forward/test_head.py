"""The output layer in tiles against whole logits in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rlt_data.reward.forward.head import Head, LogitsHead, score_divergences, score_targets
from rlt_data.reward.forward.memory import TileSize

ROWS, HIDDEN = 23, 12


def make_head(vocabulary: int, seed: int, **options: float | Tensor | None) -> Head:
    generator = torch.Generator().manual_seed(seed)
    head = Head(torch.randn(vocabulary, HIDDEN, generator=generator), None, 0.7)
    return replace(head, **options)


def make_rows(seed: int) -> Tensor:
    return torch.randn(ROWS, HIDDEN, generator=torch.Generator().manual_seed(seed))


def compute_logprobs(rows: Tensor, head: Head) -> Tensor:
    logits = rows.double() @ head.weight.double().t()
    if head.bias is not None:
        logits = logits + head.bias.double()
    logits = logits * head.scale
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return torch.log_softmax(logits / head.temperature, dim=-1)


OPTIONS = [
    {},
    {"bias": torch.linspace(-2, 2, 301)},
    {"scale": 0.25},
    {"softcap": 5.0},
    {"softcap": 5.0, "scale": 3.0, "bias": torch.linspace(-2, 2, 301)},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "plain")
def test_targets(options: dict[str, float | Tensor]) -> None:
    head = make_head(301, 0, **options)
    rows = make_rows(1)
    targets = torch.arange(ROWS) * 13 % 301
    found = score_targets(rows, head, targets, TileSize(7, 64))
    expected = compute_logprobs(rows, head).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 400))
def test_the_tile_changes_nothing(rows: int, entries: int) -> None:
    teacher, student = make_head(301, 2), make_head(301, 3, temperature=1.3)
    left, right = make_rows(4), make_rows(5)
    targets = torch.arange(ROWS)
    found = score_divergences(left, teacher, right, student, targets, TileSize(rows, entries))
    a, b = compute_logprobs(left, teacher), compute_logprobs(right, student)
    picked = targets[:, None]
    torch.testing.assert_close(found.teacher_logprobs.double(), a.gather(1, picked)[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found.student_logprobs.double(), b.gather(1, picked)[:, 0], atol=1e-5, rtol=0)
    expected = (a.exp() * (a - b)).sum(-1)
    torch.testing.assert_close(found.divergences.double(), expected, atol=1e-5, rtol=3e-6)


def test_equal_distributions_do_not_diverge() -> None:
    head, rows = make_head(301, 0), make_rows(1)
    found = score_divergences(rows, head, rows, head, torch.zeros(ROWS, dtype=torch.long), TileSize(8, 50))
    assert found.divergences.min() >= 0
    assert found.divergences.max() < 1e-5


@pytest.mark.parametrize("swapped", [False, True])
def test_padding_of_one_output_layer(swapped: bool) -> None:
    """Qwen2.5 pads its vocabulary differently by size: the divergence is over what both models have."""
    small, large = make_head(290, 2), make_head(301, 3)
    teacher, student = (large, small) if swapped else (small, large)
    left, right = make_rows(4), make_rows(5)
    targets = torch.arange(ROWS)
    found = score_divergences(left, teacher, right, student, targets, TileSize(8, 50))
    a, b = compute_logprobs(left, teacher), compute_logprobs(right, student)
    expected = (a[:, :290].exp() * (a[:, :290] - b[:, :290])).sum(-1).clamp_min(0)
    torch.testing.assert_close(found.divergences.double(), expected, atol=1e-5, rtol=3e-6)
    torch.testing.assert_close(
        found.student_logprobs.double(), b.gather(1, targets[:, None])[:, 0], atol=1e-5, rtol=0
    )


def test_half_precision_weights_sum_in_float32() -> None:
    head, rows = make_head(5000, 0), make_rows(1)
    half = replace(head, weight=head.weight.bfloat16())
    targets = torch.arange(ROWS)
    found = score_targets(rows.bfloat16(), half, targets, TileSize(8, 512))
    assert found.dtype == torch.float32
    rounded = replace(head, weight=half.weight.float())
    expected = compute_logprobs(rows.bfloat16().float(), rounded).gather(1, targets[:, None])[:, 0]
    # Logits of these rows reach 20, where a bfloat16 is off by up to 0.06; sums must add nothing to that.
    torch.testing.assert_close(found.double(), expected, atol=0.07, rtol=0)


def test_whole_logits_replace_an_output_layer() -> None:
    head, rows = make_head(301, 0), make_rows(1)
    targets = torch.arange(ROWS)
    logits = rows @ head.weight.t()
    found = score_targets(logits, LogitsHead(301, 0.7), targets, TileSize(8, 50))
    torch.testing.assert_close(found, score_targets(rows, head, targets, TileSize()), atol=1e-5, rtol=0)
