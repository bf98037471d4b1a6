"""A lake with hand-written questions, traces and token scores, so that rewards can be computed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
from opened_run import open_run

from rlt_data.lake import Lake
from rlt_data.stages.runtime.contract import RunField, StageConfig

ANSWER = 14


class MadeConfig(StageConfig):
    """Replaces a stage whose rows a test writes itself."""

    label: RunField[str] = ""


def make_question(number: int) -> dict[str, Any]:
    return {
        "question_id": f"q{number}",
        "question": f"What is {number} + {ANSWER - number}?",
        "solution": f"Add them: {number} + {ANSWER - number} = 14. The answer is \\boxed{{14}}.",
        "answer": str(ANSWER),
        "solution_rendered": False,
        "dataset": "made",
        "source": "/some/where/made.jsonl",
        "source_row": number,
    }


def make_trace(question: int, sample: int, think: str | None = None, **columns: Any) -> dict[str, Any]:
    think = (
        f"First add {question}.\n\nThen there are 14, sample {sample}. So 14.\n\n" if think is None else think
    )
    return {
        "trace_id": f"q{question}t{sample}",
        "question_id": f"q{question}",
        "sample_index": sample,
        "origin": "generated",
        "teacher": "teacher",
        "teacher_model": "/models/teacher",
        "teacher_revision": "abc",
        "completion": f"{think}<|end_of_explanation|>",
        "think": think,
        "state": "closed",
        "truncated": False,
        **columns,
    }


def make_score(
    trace: dict[str, Any],
    quality: float,
    *,
    student: str = "student",
    exact: float | None = None,
    k1: float | None = 0.0,
    label: str = "",
    **columns: Any,
) -> dict[str, Any]:
    """A score whose r_SS is `quality` (alpha 0): one solution token, one think token."""
    return {
        "score_id": f"{trace['trace_id']}-{student}-{label}",
        "trace_id": trace["trace_id"],
        "question_id": trace["question_id"],
        "student": student,
        "teacher": None if k1 is None else "teacher",
        "teacher_revision": None if k1 is None else "abc",
        "backend": "torch",
        "dtype": "float32",
        "temperature_student": 0.7,
        "student_tokens": 10,
        "solution_tokens": 1,
        "think_tokens": 1,
        "closed": trace["state"] != "missing_close",
        "solution_logprobs": [quality],
        "think_student_logprobs": [-1.0],
        "think_teacher_logprobs": None if k1 is None else [-1.0 + k1],
        "think_divergences": None if exact is None else [exact],
        "solution_token_starts": [0],
        "solution_token_ends": [1],
        "think_token_starts": [0],
        "think_token_ends": [1],
        **columns,
    }


def append_made(
    lake: Lake,
    stage: str,
    table: str,
    rows: Sequence[dict[str, Any]],
    *,
    label: str = "",
    finish: bool = True,
) -> str:
    """Append rows as a run of `stage` would, and return the run's id; `finish=False` leaves it unfinished."""
    try:
        with open_run(lake, stage, MadeConfig(label=label), inputs=(), outputs=(table,)) as run:
            run.append(table, list(rows))
            if not finish:
                raise InterruptedError
    except InterruptedError:
        pass
    return run.run_id


def make_lake(
    folder: Path, *, questions: int = 3, samples: int = 3, quality: Any = None, **score: Any
) -> tuple[Lake, list[dict[str, Any]]]:
    """A lake with `questions` x `samples` scored traces; `quality(question, sample)` defaults to -sample."""
    quality = quality or (lambda question, sample: -1.0 - sample)
    lake = Lake(folder / "lake")
    traces = [make_trace(q, s) for q in range(questions) for s in range(samples)]
    append_made(lake, "ingest", "questions", [make_question(q) for q in range(questions)])
    append_made(lake, "generate", "traces", traces)
    scores = [make_score(t, quality(int(t["question_id"][1:]), t["sample_index"]), **score) for t in traces]
    append_made(lake, "score", "scores", scores)
    return lake, traces


def read_run(lake: Lake, table: str, run_id: str) -> pl.DataFrame:
    return lake.table(table).scan().filter(pl.col("run_id") == run_id).collect()
