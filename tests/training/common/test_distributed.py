"""Processes that train together, and a training in one of them alone."""

from __future__ import annotations

import os
import weakref

import pytest

from rlt_data.training.common.distributed import World, end_training, train_alone

accelerate = pytest.importorskip("accelerate")


def test_training_alone_joins_no_other_process(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "ACCELERATE_USE_DEEPSPEED": "true"}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    with train_alone():
        assert World().size == 1
        assert not launched.keys() & os.environ.keys()
        assert accelerate.PartialState(cpu=True).num_processes == 1
    assert {name: os.environ[name] for name in launched} == launched
    assert World().size == 2
    assert not accelerate.PartialState._shared_state, "the next training joins the other processes"


def test_a_finished_training_frees_its_weights() -> None:
    class Trainer:
        """Part of a reference cycle, as trainers and their callbacks are."""

        def __init__(self) -> None:
            self.callback = self

    kept = weakref.ref(Trainer())
    end_training()
    assert kept() is None
