"""When `grade` is killed; see `tests/faults/kill_case.py`."""

from __future__ import annotations

from pathlib import Path

from faults.kill_case import KillCase


def make_case(folder: Path) -> KillCase:
    # Graders that the evaluation did not use: with its own, all is graded.
    return KillCase({"grader": ["integer", "countdown"]}, "grades", (1, 2), longest=0.2)
