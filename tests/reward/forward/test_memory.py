"""Memory: sizes from a budget, a peak that does not grow with length times vocabulary, and running out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.errors import UsageError
from rlt_data.reward.forward.memory import (
    ModelShape,
    choose_sizes,
    count_working_bytes,
    read_shape,
)
from rlt_data.reward.scoring.scoring_model import ScoringModel

SEVEN_BILLION = ModelShape(3584, 18944, 28, 4, 128, 28, 152064, 6_500_000_000, 2)


@pytest.fixture(scope="module")
def probed() -> dict[str, list[float]]:
    """The results of `memory_probe.py`, by its arguments."""
    if sys.platform != "linux":
        pytest.skip("reads peak memory from /proc")
    arguments = ["packed:2000:16000", "packed:4000:32000", "dense:4000:32000", "packed:600:500:300"]
    command = [sys.executable, str(Path(__file__).with_name("memory_probe.py")), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    lines = [[float(word) for word in line.split()] for line in done.stdout.splitlines()]
    return dict(zip(arguments, lines, strict=True))


def test_the_peak_is_flat_in_length_times_vocabulary(probed: dict[str, list[float]]) -> None:
    """Twice the length and twice the vocabulary: whole logits grow fourfold, ours by what activations do."""
    small, large = probed["packed:2000:16000"][0], probed["packed:4000:32000"][0]
    assert large - small < 100
    assert large < 200
    # The probe does see whole logits where they are held: 4,000 x 32,000 float32 are 488 MiB.
    assert probed["dense:4000:32000"][0] > 450


def test_running_out_of_memory_halves_the_pass_and_tries_again(probed: dict[str, list[float]]) -> None:
    texts, pack_tokens = probed["packed:600:500:300"]
    assert texts == 40
    assert 600 < pack_tokens < 30_000


@given(st.integers(400 * 2**20, 64 * 2**30), st.booleans(), st.sampled_from(["cpu", "cuda"]))
def test_sizes_fit_their_budget(budget: int, exact: bool, device: str) -> None:
    sizes = choose_sizes([SEVEN_BILLION], budget=budget, exact=exact, device=device)
    assert count_working_bytes([SEVEN_BILLION], sizes, exact=exact) <= budget


def test_a_larger_budget_never_gives_smaller_passes() -> None:
    chosen = [
        choose_sizes([SEVEN_BILLION], budget=gib * 2**30, exact=True, device="cuda")
        for gib in (1, 2, 4, 8, 64)
    ]
    tiles = [sizes.tile.rows * sizes.tile.entries for sizes in chosen]
    assert tiles == sorted(tiles)
    assert chosen[-1] == choose_sizes([SEVEN_BILLION], budget=None, exact=True, device="cuda")


def test_a_budget_that_is_too_small_is_refused_with_what_is_needed() -> None:
    with pytest.raises(UsageError, match="at least"):
        choose_sizes([SEVEN_BILLION], budget=2**20, exact=False, device="cpu")


def test_read_shape(student: ScoringModel) -> None:
    shape = read_shape(student.model)
    assert (shape.hidden, shape.layers, shape.heads, shape.key_value_heads, shape.element) == (32, 2, 4, 2, 4)
    weights = sum(parameter.numel() for parameter in student.model.parameters())
    assert shape.body_parameters == weights - shape.vocabulary * shape.hidden
