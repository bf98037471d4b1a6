"""The pages hold together: links lead somewhere, and every page is reached from the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def list_links(page: Path) -> list[str]:
    """List the relative links of a page, without their anchors."""
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    return [link.split("#")[0] for link in links if "://" not in link and not link.startswith("#")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path):
    assert [link for link in list_links(page) if not (page.parent / link).exists()] == []


def test_every_page_is_linked_from_the_readme():
    linked = {(ROOT / link).resolve() for link in list_links(ROOT / "README.md")}
    assert {page for page in PAGES if page.parent.name == "docs"} <= linked


def test_the_commands_of_the_readme_exist():
    from rlt_data_cli.main import COMMANDS

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^|`|bin/)rlt-data ([a-z][a-z-]+)", text, re.MULTILINE))
    assert {"ingest", "generate", "score", "rank", "substitute", "export", "run", "sql"} <= named
    assert named <= {entry.name for entry in COMMANDS}


def test_the_targets_of_the_readme_and_of_ci_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    asked = set(
        re.findall(
            r"^make ([a-z]+)|`make ([a-z]+)`", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    assert {name for pair in asked for name in pair if name} <= targets
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1] == "make test"
