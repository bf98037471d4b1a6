"""Rows and lakes for the tests of the data plane."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from rlt_data.hashing import hash_content
from rlt_data.lake import Lake

MakeQuestions = Callable[..., pl.DataFrame]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


@pytest.fixture(scope="session")
def make_questions() -> MakeQuestions:
    """Make question rows for the numbers given; equal numbers give equal rows."""

    def make(*numbers: int) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "question_id": [hash_content("question", n) for n in numbers],
                "question": [f"What is {n} + {n}?" for n in numbers],
                "solution": [f"{n} + {n} = {2 * n}" for n in numbers],
                "solution_rendered": [False for _ in numbers],
            },
            schema_overrides={"question_id": pl.String, "question": pl.String, "solution": pl.String},
        )

    return make
