"""Every example runs unchanged, in an empty folder and without network."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

# What each example must have printed when it is done.
EXPECTED = {
    "ask_any_version": "now [{'questions': 3}], at version 1 [{'questions': 2}]",
    "own_format": "think: 'Count on from 2. </think> is only text here.'",
    "reward_in_trl": "step 2: reward",
    "sweep_rewards": "estimator full  lambda 3  mean reward",
}


def test_every_example_is_run_here():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_example_prints_what_it_promises(name: str, tmp_path: Path):
    pytest.importorskip("transformers")
    env = {name: value for name, value in os.environ.items() if not name.startswith("RLT_DATA")}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=env | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert EXPECTED[name] in done.stdout
    assert list(tmp_path.iterdir()) == []
