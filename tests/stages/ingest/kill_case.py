"""When `ingest` is killed; see `tests/faults/kill_case.py`."""

from __future__ import annotations

from pathlib import Path

from faults.kill_case import KillCase


def make_case(folder: Path) -> KillCase:
    source = str(folder / "problems.jsonl")
    return KillCase({"source": source}, "rejects", (1, 2, 4), longest=0.05, commit_seconds=0.03)
