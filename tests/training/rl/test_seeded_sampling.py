"""Seeded draws: a row's tokens depend on its own seed, and follow its distribution."""

from __future__ import annotations

from typing import Any

import pytest

from rlt_data.engines.base import SamplingParameters

torch = pytest.importorskip("torch")
seeded_sampling = pytest.importorskip("rlt_data.training.rl.seeded_sampling")
SeededDraws, make_seed = seeded_sampling.SeededDraws, seeded_sampling.make_seed

SAMPLING = SamplingParameters(temperature=0.7, top_p=1.0, top_k=0, max_tokens=8, stop=())


def draw(seeds: list[int], scores: torch.Tensor) -> tuple[list[int], Any]:
    draws = SeededDraws(seeds, SAMPLING)
    return draws(None, scores).argmax(dim=-1).tolist(), draws


def test_neighboring_rows_do_not_change_a_draw() -> None:
    scores = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    seeds = [make_seed(0, group, 0) for group in range(6)]
    together, _ = draw(seeds, scores)
    apart = [draw([seed], scores[row : row + 1])[0][0] for row, seed in enumerate(seeds)]
    assert together == apart


def test_draws_follow_the_distribution() -> None:
    scores = torch.tensor([[0.0, 0.7, 1.4]])
    seeds = [make_seed(1, 0, sample) for sample in range(6000)]
    tokens, draws = draw(seeds, scores.expand(6000, -1))
    expected = torch.softmax(scores[0] / 0.7, dim=-1)
    for token in range(3):
        assert tokens.count(token) / 6000 == pytest.approx(float(expected[token]), abs=0.025)
    assert draws.list_row(0, 1)[0] == pytest.approx(float(expected[tokens[0]].log()), abs=1e-6)


def test_steps_and_samples_draw_apart() -> None:
    scores = torch.zeros(1, 1000)
    draws = SeededDraws([make_seed(0, 0, 0)], SAMPLING)
    written = [int(draws(None, scores).argmax()) for _ in range(5)]
    assert len(set(written)) > 3
    assert (
        len({make_seed(seed, group, sample) for seed in (0, 1) for group in (0, 1) for sample in (0, 1)}) == 8
    )
