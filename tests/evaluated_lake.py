"""A lake with hand-written evaluations and grades."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from small_lake import append_made

from rlt_data.lake import Lake

VERDICTS = {"c": "correct", "w": "wrong", "n": "no_answer", "t": "truncated", "f": "failed"}


def make_evaluation(model: str, task: str, question: str, sample: int, **columns: Any) -> dict[str, Any]:
    row = {
        "task": task,
        "prompt_hash": "prompt",
        "question_id": question,
        "question": f"What is {question}?",
        "answer": "14",
        "source": "/some/where/made.jsonl",
        "source_row": 0,
        "model": model,
        "model_revision": f"{model}-weights",
        "engine": "torch 1",
        "format": "stratos",
        "sample_index": sample,
        "completion": "14",
        "truncated": False,
        "temperature": 0.6,
        "top_p": 1.0,
        "top_k": 0,
        "max_tokens": 1024,
        **columns,
    }
    settings = [str(row[name]) for name in ("model_revision", "prompt_hash", "temperature", "max_tokens")]
    return {"evaluation_id": "-".join([model, task, question, str(sample), *settings]), **row}


def make_grade(evaluation: Mapping[str, Any], verdict: str, **columns: Any) -> dict[str, Any]:
    row = {
        "evaluation_id": evaluation["evaluation_id"],
        "task": evaluation["task"],
        "question_id": evaluation["question_id"],
        "model": evaluation["model"],
        "model_revision": evaluation["model_revision"],
        "sample_index": evaluation["sample_index"],
        "grader": "math",
        "grader_version": "1",
        "primary": True,
        "extraction": "stated",
        "extracted_answer": {"correct": "14", "wrong": "15"}.get(verdict),
        "answer": "14",
        "verdict": verdict,
        **columns,
    }
    key = [str(row[name]) for name in ("grader", "grader_version", "extraction")]
    return {"grade_id": "-".join([row["evaluation_id"], *key, str(columns.get("attempt", ""))]), **row}


def append_evaluations(
    lake: Lake,
    model: str,
    task: str,
    questions: Mapping[str, str],
    *,
    finish: bool = True,
    grade: Mapping[str, Any] | None = None,
    **columns: Any,
) -> str:
    """Append evaluations as one run, and their grades as another; return the id of the first.

    Each letter of a question is a sample: correct, wrong, no answer, truncated or failed.
    """
    letters = [(q, i, letter) for q, samples in questions.items() for i, letter in enumerate(samples)]
    rows = [
        make_evaluation(model, task, q, i, **{"truncated": letter == "t", **columns})
        for q, i, letter in letters
    ]
    grades = [
        make_grade(row, VERDICTS[letter], **(grade or {}))
        for row, (_, _, letter) in zip(rows, letters, strict=True)
    ]
    name = f"{len(lake.runs())}"
    run = append_made(lake, "evaluate", "evaluations", rows, label=name, finish=finish)
    append_made(lake, "grade", "grades", grades, label=name)
    return run


def number_questions(letters: str, *, name: str = "q") -> dict[str, str]:
    """One question a letter, with one sample."""
    return {f"{name}{i:03}": letter for i, letter in enumerate(letters)}
