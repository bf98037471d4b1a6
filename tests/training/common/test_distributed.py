"""Processes that train together, and what one of them does by itself."""

from __future__ import annotations

import os
import weakref

import pytest

from rlt_data.training.common.distributed import World, end_training, train_alone

accelerate = pytest.importorskip("accelerate")


def test_training_alone_knows_of_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "ACCELERATE_USE_DEEPSPEED": "true"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    with train_alone():
        assert World().size == 1
        assert not launched.keys() & os.environ.keys()
        assert accelerate.PartialState(cpu=True).num_processes == 1
    assert {name: os.environ[name] for name in launched} == launched
    assert World().size == 2
    assert not accelerate.PartialState._shared_state, "the next to ask meets the other processes"


def test_a_training_that_is_over_lets_its_weights_go() -> None:
    class Trainer:
        """Known to what it knows, as trainers and their callbacks are."""

        def __init__(self) -> None:
            self.callback = self

    kept = weakref.ref(Trainer())
    end_training()
    assert kept() is None
