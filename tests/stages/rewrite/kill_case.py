"""When `rewrite` is killed; see `tests/faults/kill_case.py`."""

from __future__ import annotations

from pathlib import Path

from faults.kill_case import KillCase


def make_case(folder: Path) -> KillCase:
    prompt = folder / "clean-up.txt"
    prompt.write_text("Clean this up:\n{completion}", encoding="utf-8")
    config = {
        "model": str(folder / "student"),
        "prompt": str(prompt),
        "engine": "transformers",
        "max_tokens": 12,
        "temperature": 0.7,
        "max_batch_rows": 4,
        "allow_truncated": True,
    }
    return KillCase(config, "traces", (2, 4), longest=0.2)
