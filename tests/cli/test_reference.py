"""docs/cli.md equals the output of --help, and names the Python function of every command."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType

import pytest

from rlt_data_cli.main import COMMANDS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_pages", DOCS / "make_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_make_docs_writes(maker: ModuleType):
    written = (DOCS / "cli.md").read_text(encoding="utf-8")
    assert written == maker.build_cli_page(), "docs/cli.md is stale: run `make docs`"


def test_the_architecture_page_shows_the_registered_stages(maker: ModuleType):
    written = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert written == maker.build_architecture_page(written), "docs/architecture.md is stale: run `make docs`"
    assert maker.build_stage_table() in written


def test_every_command_is_documented_with_a_twin_that_exists(maker: ModuleType):
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    for entry in COMMANDS:
        assert f"\n## rlt-data {entry.name}\n" in page
        assert callable(resolve_name(entry.twin))
