"""The models of the demo: a tiny student and teacher, trained from scratch in under a minute.

The student is the model of chained arithmetic (`arithmetic_model`). The teacher is that student, trained a
little further on explanations of mixed quality: about half of what it writes is good.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from rlt_data.errors import require_module
from rlt_data.formats import load_format
from rlt_data.hashing import hash_content
from rlt_data.models.loading import hide_progress_bars
from rlt_data.progress import Reporter
from rlt_data.training.from_scratch.arithmetic_model import (
    TEACHER_STYLES,
    ArithmeticModelConfig,
    build_arithmetic_model,
    draw_explained,
    has_arithmetic_model,
    train_tiny,
)
from rlt_data.training.from_scratch.tiny_model import check_replaceable, save_model
from rlt_data.training.sft.checks.examples import check_example
from rlt_data.training.sft.examples import build_teacher_examples

MARKER = "rlt_data_demo.txt"


class DemoModelsConfig(BaseModel):
    """How the two models are built and trained. Every setting decides their weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    terms: int = 3
    """Number of terms of the demo's chains."""
    examples: int = 9600
    teacher_steps: int = 60
    teacher_batch_size: int = 32
    teacher_learning_rate: float = 1e-3

    @property
    def student(self) -> ArithmeticModelConfig:
        """The configuration of the student."""
        return ArithmeticModelConfig(seed=self.seed, terms=self.terms, examples=self.examples)


class DemoModels(NamedTuple):
    """Directories of the two models."""

    teacher: Path
    student: Path


def build_demo_models(
    directory: Path,
    *,
    seed: int = 0,
    reporter: Reporter | None = None,
    config: DemoModelsConfig | None = None,
) -> DemoModels:
    """Build `directory`/teacher and `directory`/student, unless they exist already.

    Raises `MissingExtraError` without the packages that train models, `UsageError` where either directory
    contains something else.
    """
    config = config or DemoModelsConfig(seed=seed)
    models = _name_models(directory)
    if has_demo_models(directory, config):
        return models
    check_replaceable(models.teacher, MARKER)
    reporter = reporter or Reporter(quiet=True)
    build_arithmetic_model(models.student, config.student, reporter)
    model, tokenizer = _load_for_training(models.student)
    format = load_format(config.student.format)
    rng = random.Random(config.seed + 1)
    drawn = [
        draw_explained(rng, config.student, TEACHER_STYLES)
        for _ in range(config.teacher_steps * config.teacher_batch_size)
    ]
    examples = build_teacher_examples(format, tokenizer, drawn)
    check_example(examples[0], tokenizer, format, closing=format.teacher.close)
    with reporter.track("training the tiny teacher", config.teacher_steps, unit="steps") as task:
        train_tiny(
            model,
            tokenizer,
            examples,
            batch_size=config.teacher_batch_size,
            learning_rate=config.teacher_learning_rate,
            steps=config.teacher_steps,
            seed=config.seed,
            task=task,
        )
    save_model(model, tokenizer, models.teacher, marker=(MARKER, _identify(config)))
    return models


def has_demo_models(directory: Path, config: DemoModelsConfig) -> bool:
    """Whether `directory` holds the two models of this configuration."""
    models = _name_models(directory)
    marker = models.teacher / MARKER
    same = marker.is_file() and marker.read_text(encoding="utf-8") == _identify(config)
    return same and has_arithmetic_model(models.student, config.student)


def _identify(config: DemoModelsConfig) -> str:
    return hash_content("demo", config.model_dump(), config.student.model_dump(mode="json"))


def _name_models(directory: Path) -> DemoModels:
    return DemoModels(directory / "teacher", directory / "student")


def _load_for_training(directory: Path) -> tuple[Any, Any]:
    transformers = require_module("transformers", "models")
    with hide_progress_bars():
        model = transformers.AutoModelForCausalLM.from_pretrained(
            directory, dtype="float32", local_files_only=True
        )
    return model, transformers.AutoTokenizer.from_pretrained(directory, local_files_only=True)
