"""When `evaluate` is killed; see `tests/faults/kill_case.py`."""

from __future__ import annotations

from pathlib import Path

from faults.kill_case import QUESTIONS, KillCase


def make_case(folder: Path) -> KillCase:
    config = {
        "model": [str(folder / "student")],
        "task": ["own"],
        "data": str(folder / "problems.jsonl"),
        "limit": QUESTIONS,
        "samples": 2,
        "temperature": 0.7,
        "format": "r1",
        "engine": "transformers",
        "max_tokens": 12,
        "max_batch_rows": 4,
    }
    return KillCase(config, "evaluations", (3, 9), longest=0.2)
