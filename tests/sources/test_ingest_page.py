"""docs/ingest.md names every layout and every reject reason that the code has."""

from __future__ import annotations

import re
from pathlib import Path

from rlt_data.sources.layouts import LAYOUTS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "ingest.md").read_text("utf-8")
REASON = re.compile(r'(?:RowError|BadRow)\(\s*(?:[\w.]+,\s*)?f?"([a-z_]+(?:\{what\})?)"|reason = "([a-z_]+)"')


def list_reasons() -> set[str]:
    files = [*ROOT.glob("rlt_data/sources/**/*.py"), *ROOT.glob("rlt_data/stages/ingest/*.py")]
    found = {
        name for file in files for pair in REASON.findall(file.read_text("utf-8")) for name in pair if name
    }
    return {name.replace("{what}", what) for name in found for what in ("question", "solution", "trace")}


def test_every_layout_is_described() -> None:
    assert [layout.name for layout in LAYOUTS if f"`{layout.name}`" not in PAGE] == []


def test_every_reject_reason_is_described() -> None:
    reasons = list_reasons()
    assert {"missing_solution", "duplicate_trace", "over_long_trace", "ragged_row", "wrong_type"} <= reasons
    assert sorted(reason for reason in reasons if f"`{reason}`" not in PAGE) == []
