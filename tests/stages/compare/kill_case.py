"""When `compare` is killed; see `tests/faults/kill_case.py`."""

from __future__ import annotations

from pathlib import Path

from faults.kill_case import KillCase


def make_case(folder: Path) -> KillCase:
    return KillCase({}, longest=0.4)
