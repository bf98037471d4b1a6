"""A small lake of traces, scored by two backends and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.stages.runtime.contract import StageSummary
from rlt_data.stages.score import ScoreConfig, score

EXPLANATIONS = [
    "First add, then multiply: 3 + 4 = 7.",
    "She sold 12 eggs every day for $2, so she had 24 dollars at the market. The answer is 24.",
    "It is so.",
    "word " * 4200,
]
VALUES = ("solution_logprobs", "think_student_logprobs", "think_teacher_logprobs")
REWARDS = ("solution_logprob_avg", "solution_logprob_min", "kl_avg", "kl_max", "reward")


def build_scoring_lake(folder: Path) -> Lake:
    """Build two questions with four explanations each; the last one exceeds a context of 4,096 tokens."""
    lake = Lake(folder)
    questions, traces = [], []
    for question in ("How many dollars are 3 eggs at $2?", "What is 3 + 4?"):
        question_id = hash_content("question", question)
        row = {"question_id": question_id, "question": question, "solution": "The answer is 14."}
        questions.append({**row, "solution_rendered": False, "run_id": "test"})
        for index, think in enumerate(EXPLANATIONS):
            traces.append(
                {
                    "trace_id": hash_content("trace", question, index),
                    "question_id": question_id,
                    "sample_index": index,
                    "origin": "imported",
                    "format": "stratos",
                    "completion": think,
                    "think": think,
                    "state": "closed",
                    "truncated": False,
                    "run_id": "test",
                }
            )
    lake.table("questions").append(pl.DataFrame(questions), run_id="test")
    lake.table("traces").append(pl.DataFrame(traces), run_id="test")
    return lake


def compare_with_torch(lake: Lake, model: Path, **options: Any) -> StageSummary:
    """Score by torch and by another backend and compare the numbers. Returns the other's summary."""
    shared: dict[str, Any] = {"students": (str(model),), "teacher": str(model), "device": "cpu"}
    if "temperature" in options:
        shared["temperature"] = options["temperature"]
    plain = score(lake, ScoreConfig(**shared))
    other = score(lake, ScoreConfig(**{**shared, **options}))
    assert (other.rows_in, other.rows_out, other.rejected) == (8, 6, 2)
    assert (plain.rows_in, plain.rows_out, plain.rejected) == (8, 6, 2)
    frame = lake.table("scores").scan().sort("trace_id").collect()
    rows = {
        backend: frame.filter(pl.col("backend") == backend).to_dicts()
        for backend in ("torch", options["backend"])
    }
    for expected, found in zip(rows["torch"], rows[options["backend"]], strict=True):
        assert found["score_id"] != expected["score_id"]
        for name in VALUES:
            assert found[name] == pytest.approx(expected[name], abs=2e-4), name
        for name in REWARDS:
            assert found[name] == pytest.approx(expected[name], abs=1e-3), name
        for name in ("trace_id", "student_tokens", "teacher_tokens", "think_token_starts"):
            assert found[name] == expected[name], name
    reasons = lake.table("rejects").scan().collect().get_column("reason")
    assert set(reasons) == {"over_context"}
    return other
