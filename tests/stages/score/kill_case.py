"""When `score` is killed; see `tests/faults/kill_case.py`."""

from __future__ import annotations

from pathlib import Path

from faults.kill_case import KillCase


def make_case(folder: Path) -> KillCase:
    student = str(folder / "student")
    config = {"students": [student], "format": "r1", "batch_tokens": 2048, "pack_tokens": 1024}
    return KillCase(config, "scores", (1, 2))
