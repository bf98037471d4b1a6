"""When `substitute` is killed; see `tests/faults/kill_case.py`."""

from __future__ import annotations

from pathlib import Path

from faults.kill_case import KillCase


def make_case(folder: Path) -> KillCase:
    config = {"student": str(folder / "student"), "format": "r1", "batch_size": 2}
    return KillCase(config, "distillation", (2,), longest=0.2)
