"""Seeded draws have the right distribution and depend only on seed, step and logits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlt_data.engines import sampling as module
from rlt_data.engines.base import SamplingParameters
from rlt_data.engines.sampling import make_gumbel_noise, sample_tokens

DRAWS = 20_000


def draw(logits: list[float], parameters: SamplingParameters, *, step: int = 0) -> list[float]:
    """Draw many times from one distribution; returns the share of each token."""
    rows = torch.tensor(logits).expand(DRAWS, -1)
    tokens, _ = sample_tokens(rows, range(DRAWS), [step] * DRAWS, parameters)
    return (torch.bincount(torch.tensor(tokens), minlength=len(logits)) / DRAWS).tolist()


def check_shares(found: list[float], expected: list[float]) -> None:
    for share, probability in zip(found, expected, strict=True):
        error = math.sqrt(probability * (1 - probability) / DRAWS)
        assert share == pytest.approx(probability, abs=4.5 * error)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_draws_follow_the_softmax_under_the_temperature(temperature: float) -> None:
    logits = [2.0, 1.0, 0.0, -1.0, 1.5, -40.0]
    expected = (torch.tensor(logits) / temperature).softmax(0).tolist()
    check_shares(draw(logits, SamplingParameters(temperature, 1.0, 0, 1)), expected)
    check_shares(draw(logits, SamplingParameters(temperature, 1.0, 0, 1), step=3), expected)


def test_top_k_and_top_p_truncate_the_distribution() -> None:
    logits = [math.log(p) for p in (0.4, 0.3, 0.2, 0.1)]
    check_shares(draw(logits, SamplingParameters(1.0, 1.0, 2, 1)), [4 / 7, 3 / 7, 0, 0])
    check_shares(draw(logits, SamplingParameters(1.0, 0.65, 0, 1)), [4 / 7, 3 / 7, 0, 0])
    # top-p is applied to what top-k kept: 4/9 + 3/9 is less than 0.8, so the third stays.
    check_shares(draw(logits, SamplingParameters(1.0, 0.8, 3, 1)), [4 / 9, 3 / 9, 2 / 9, 0])
    check_shares(draw(logits, SamplingParameters(1.0, 1e-9, 0, 1)), [1, 0, 0, 0])


def test_neighboring_seeds_steps_and_tokens_are_independent() -> None:
    streams = torch.arange(200).unsqueeze(1)
    noise = make_gumbel_noise(streams, torch.arange(500).unsqueeze(0))
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=0.05)
    for left, right in ((noise[:-1], noise[1:]), (noise[:, :-1], noise[:, 1:])):
        assert torch.corrcoef(torch.stack([left.flatten(), right.flatten()]))[0, 1].abs() < 0.015


def test_greedy_returns_the_likeliest_token_with_its_log_probability_at_temperature_one() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, -1.0, 0.0]])
    tokens, logprobs = sample_tokens(logits, [0, 1], [0, 0], SamplingParameters(0.0, 1.0, 0, 1))
    assert tokens == [1, 0]
    assert logprobs == pytest.approx(logits.log_softmax(-1)[[0, 1], [1, 0]].tolist())


def test_log_probabilities_are_over_the_whole_vocabulary() -> None:
    logits = torch.tensor([[math.log(p) for p in (0.4, 0.3, 0.2, 0.1)]])
    _, logprobs = sample_tokens(logits, [5], [0], SamplingParameters(1.0, 1.0, 1, 1))
    assert logprobs == pytest.approx([math.log(0.4)])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(2, 200))
def test_a_row_does_not_depend_on_other_rows(seed: int, rows: int, vocabulary: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, vocabulary, generator=generator) * 5
    parameters = SamplingParameters(0.7, 0.95, 20, 1)
    seeds, steps = [seed + row for row in range(rows)], list(range(rows))
    together, _ = sample_tokens(logits, seeds, steps, parameters)
    for row in range(rows):
        alone, _ = sample_tokens(
            logits[row : row + 1], seeds[row : row + 1], steps[row : row + 1], parameters
        )
        assert alone == together[row : row + 1]


def test_dense_and_sparse_draws_agree() -> None:
    scaled = torch.randn(64, 300, generator=torch.Generator().manual_seed(0)) * 3
    scaled = scaled.masked_fill(scaled < 0, -torch.inf)
    streams = torch.arange(64)
    assert torch.equal(module._draw_dense(scaled, streams), module._draw_sparse(scaled, streams))


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(FloatingPointError):
        sample_tokens(torch.tensor([[0.0, math.nan]]), [0], [0], SamplingParameters(1.0, 1.0, 0, 1))
