"""The examples of docs/data-plane.md run as they are, and its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from small_lake import append_made, make_lake, make_score, make_trace

from rlt_data.lake import Lake
from rlt_data.lake.tables.keys import UNIQUE_KEYS
from rlt_data.schemas import TABLES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data-plane.md").read_text(encoding="utf-8")


def list_examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """A lake whose traces and scores have version 3."""
    lake, _ = make_lake(tmp_path, questions=1, samples=1)
    for sample in (1, 2):
        trace = make_trace(0, sample)
        append_made(lake, "generate", "traces", [trace], label=str(sample))
        append_made(lake, "score", "scores", [make_score(trace, -1.0)], label=str(sample))
    return lake


def test_the_python_example_runs(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(lake.uri).parent)
    (example,) = list_examples("python")
    exec(example.replace('"4f1c"', repr(lake.runs()[0].run_id[:8])), {})


def test_the_sql_example_answers(lake: Lake) -> None:
    (example,) = list_examples("sql")
    assert lake.sql(example).num_rows == 3


def test_the_page_lists_every_table_with_the_scope_of_its_keys() -> None:
    rows = re.findall(r"^\| (`.*) \| .* \| (unique|of each run) \|$", PAGE, re.MULTILINE)
    scopes = {name: scope for names, scope in rows for name in re.findall(r"`(\w+)`", names)}
    assert list(scopes) == list(TABLES)
    assert {name for name, scope in scopes.items() if scope == "unique"} == UNIQUE_KEYS


def test_the_page_names_modules_that_exist() -> None:
    modules = PAGE.split("## Modules")[1].split("## ")[0]
    for cell in re.findall(r"^\| (`rlt_data.*?) \|", modules, re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", cell)
        for path in (ROOT / first, *((ROOT / first).parent / name for name in others)):
            assert path.exists(), path
