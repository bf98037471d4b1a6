"""When `generate` is killed; see `tests/faults/kill_case.py`."""

from __future__ import annotations

from pathlib import Path

from faults.kill_case import QUESTIONS, KillCase


def make_case(folder: Path) -> KillCase:
    config = {
        "teacher": [str(folder / "teacher")],
        "samples": 2,
        "limit": QUESTIONS,
        "format": "r1",
        "engine": "transformers",
        "max_tokens": 12,
        "max_batch_rows": 4,
        "allow_truncated": True,
    }
    return KillCase(config, "traces", (3, 9), longest=0.2)
