"""The model of chained arithmetic: built once, and the same for the same configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlt_data.models import resolve_model
from rlt_data.training.from_scratch.arithmetic_model import (
    ArithmeticModelConfig,
    build_arithmetic_model,
    has_arithmetic_model,
    measure_arithmetic_model,
)
from rlt_data.training.from_scratch.demo_models import DemoModelsConfig, build_demo_models, has_demo_models
from rlt_data.training.from_scratch.tiny_model import TinyShape

pytest.importorskip("trl")

SMALL = ArithmeticModelConfig(
    examples=48,
    batch_size=12,
    epochs=1,
    shape=TinyShape(hidden_size=32, heads=2, key_value_heads=2, feed_forward=48, context=512),
)


def read_revision(directory: Path) -> str | None:
    return resolve_model(str(directory), role="student").revision


def test_a_model_is_built_once_and_the_same(tmp_path: Path) -> None:
    made = build_arithmetic_model(tmp_path / "a", SMALL)
    before = (made / "model.safetensors").stat().st_mtime_ns
    assert has_arithmetic_model(made, SMALL)
    assert (build_arithmetic_model(made, SMALL) / "model.safetensors").stat().st_mtime_ns == before
    assert read_revision(build_arithmetic_model(tmp_path / "b", SMALL)) == read_revision(made)


def test_another_configuration_is_another_model(tmp_path: Path) -> None:
    made = build_arithmetic_model(tmp_path / "a", SMALL)
    other = SMALL.model_copy(update={"seed": 1})
    assert not has_arithmetic_model(made, other)
    revision = read_revision(made)
    assert read_revision(build_arithmetic_model(made, other)) != revision
    assert not has_arithmetic_model(tmp_path / "absent", SMALL)


def test_its_size_is_computed_without_training(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    weights = load_file(build_arithmetic_model(tmp_path, SMALL) / "model.safetensors")
    assert measure_arithmetic_model(SMALL).parameters == sum(value.numel() for value in weights.values())


def test_the_demonstration_has_a_teacher_beside_its_student(tmp_path: Path) -> None:
    config = DemoModelsConfig(examples=48, teacher_steps=2, teacher_batch_size=4)
    assert not has_demo_models(tmp_path, config)
    models = build_demo_models(tmp_path, config=config)
    assert has_demo_models(tmp_path, config)
    assert read_revision(models.teacher) != read_revision(models.student)
    assert build_demo_models(tmp_path, config=config) == models
    assert not has_demo_models(tmp_path, config.model_copy(update={"teacher_steps": 3}))
