"""A tiny untrained teacher and student of chained arithmetic, and a lake with problems to train on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlt_data.formats import load_format
from rlt_data.lake import Lake
from rlt_data.stages.ingest import IngestConfig, ingest
from rlt_data.training.from_scratch.tiny_model import TinyShape, build_tiny_model, save_model

SHAPE = TinyShape(hidden_size=32, heads=2, key_value_heads=2, feed_forward=48, context=512)
PLAIN = {"gradient_checkpointing": False, "use_cpu": True}


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Directories of models that write any token: an untrained teacher, and two untrained students."""
    pytest.importorskip("trl")
    from rlt_data.training.from_scratch.arithmetic_model import build_chain_tokenizer

    folder = tmp_path_factory.mktemp("models")
    tokenizer = build_chain_tokenizer(load_format("stratos"), terms=3, context=SHAPE.context)
    for seed, name in enumerate(("teacher", "student", "other")):
        save_model(build_tiny_model(SHAPE, tokenizer, seed=seed), tokenizer, folder / name)
    return {name: str(folder / name) for name in ("teacher", "student", "other")}


@pytest.fixture(scope="session")
def make_lake() -> Callable[[Path], Lake]:
    """Make a lake with 24 explained chains at a path."""

    def make(path: Path) -> Lake:
        lake = Lake(path)
        ingest(lake, IngestConfig(source="arithmetic:chain_sum", size=24, seed=5))
        return lake

    return make


@pytest.fixture
def lake(make_lake: Callable[[Path], Lake], tmp_path: Path) -> Lake:
    """A lake with 24 explained chains."""
    return make_lake(tmp_path / "lake")


@pytest.fixture(scope="session")
def tokenizer(models: dict[str, str]) -> Any:
    """The tokenizer of all three models."""
    from rlt_data.models import load_tokenizer, resolve_model

    return load_tokenizer(resolve_model(models["teacher"], role="teacher"))
