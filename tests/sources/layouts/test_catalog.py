"""Layouts are discovered in the files of a package and found by name."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from rlt_data.errors import UsageError
from rlt_data.sources.layouts import Example, Row, find_layout
from rlt_data.sources.layouts.catalog import discover_layouts

RIDDLES = """
from rlt_data.sources.layouts.base import Example, Layout


class Riddles(Layout):
    name = "riddles"
    about = "riddle, reply"
    signatures = (("riddle", "reply"),)

    def read(self, row):
        return Example(row.take_text("riddle"), answer=row.take_text("reply"), metadata=row.take_rest())
"""


def test_a_layout_is_added_by_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "more_layouts"
    folder.mkdir()
    (folder / "__init__.py").write_text("", "utf-8")
    (folder / "riddles.py").write_text(RIDDLES, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    (layout,) = discover_layouts(importlib.import_module("more_layouts"))
    assert layout.name == "riddles"
    assert layout.read(Row({"riddle": "q", "reply": "a", "x": 1})) == Example(
        "q", answer="a", metadata={"x": 1}
    )


def test_names_of_layouts_are_corrected() -> None:
    with pytest.raises(UsageError) as refused:
        find_layout("gsm8")
    assert "gsm8k" in (refused.value.remedy or "")
    assert find_layout("Bespoke_Stratos").name == "bespoke-stratos"
