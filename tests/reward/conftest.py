"""Tiny models and texts for the scorer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from rlt_data.formats import ConversationFormat, load_format
from rlt_data.reward.scoring.scoring_model import ScoringModel
from rlt_data.reward.scoring.texts import ScoreRequest
from rlt_data.training.from_scratch.tiny_model import TinyShape, build_tiny_model, build_tiny_tokenizer

WORDS = ["add", "take", "sum", "then", "so", "apple", "pear", "box", "three", "four", "seven"]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    pieces = [f"{space}{word}" for word in WORDS for space in ("", " ")]
    return build_tiny_tokenizer([*pieces, *map(str, range(100))])


@pytest.fixture(scope="session")
def short_format() -> ConversationFormat:
    format = load_format("stratos")
    teacher = format.teacher.model_copy(update={"system": "Explain."})
    student = format.student.model_copy(update={"system": "Think."})
    return format.model_copy(update={"teacher": teacher, "student": student})


def build_scoring_model(name: str, tokenizer: Any, *, seed: int, **shape: Any) -> ScoringModel:
    tiny = TinyShape(initializer_range=0.15, **({"key_value_heads": 2, "hidden_size": 32} | shape))
    return ScoringModel(name, build_tiny_model(tiny, tokenizer, seed=seed).eval(), tokenizer)


@pytest.fixture(scope="session")
def student(tiny_tokenizer: Any) -> ScoringModel:
    return build_scoring_model("student", tiny_tokenizer, seed=1)


@pytest.fixture(scope="session")
def teacher(tiny_tokenizer: Any) -> ScoringModel:
    return build_scoring_model("teacher", tiny_tokenizer, seed=2, layers=3, hidden_size=48)


@pytest.fixture(scope="session")
def requests_() -> Sequence[ScoreRequest]:
    """Three questions; explanations of many lengths, some empty, one unclosed, one twice."""
    texts = [
        ("add 3 and 4", "so 7", ["three then four", "", "add add\n\nso", "three then four", "sum " * 70]),
        ("take 1 box", "then 0 boxes", ["take it; so none ✓"]),
        ("pear?", "\\boxed{99}", ["apple " * n for n in (1, 9, 33)]),
    ]
    return [
        ScoreRequest(f"{index}-{number}", question, solution, think, closed=number != 1)
        for index, (question, solution, thinks) in enumerate(texts)
        for number, think in enumerate(thinks)
    ]
