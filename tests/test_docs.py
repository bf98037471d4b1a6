"""The pages are consistent: links have targets, and every page is linked from the README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_on_a_page_are_those_of_their_command(page: Path):
    """docs/cli.md, which another test compares with --help, lists them."""
    reference = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    known = {
        name: set(OPTION.findall(text))
        for name, text in re.findall(
            r"^## rlt-data (\S+)\n(.*?)(?=^## |\Z)", reference, re.MULTILINE | re.DOTALL
        )
    }
    called = re.findall(
        r"rlt-data ([a-z-]+)( [^\n`#]*)", page.read_text(encoding="utf-8").replace("\\\n", " ")
    )
    wrong = [
        f"{name} {option}"
        for name, rest in called
        for option in OPTION.findall(rest)
        if option not in known.get(name, {option})
    ]
    assert wrong == []


def test_the_targets_of_the_readme_and_of_ci_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    used = set(
        re.findall(
            r"^make ([a-z]+)|`make ([a-z]+)`", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    assert {name for pair in used for name in pair if name} <= targets
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1] == "make test"


def list_recipes(page: str) -> list[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("recipe", list_recipes("recipes.md"))
def test_the_recipes_shown_are_valid(recipe: str, tmp_path: Path):
    from rlt_data.recipe.load import load_recipe

    path = tmp_path / "shown.toml"
    path.write_text(recipe, encoding="utf-8")
    assert load_recipe([str(path)], []).recipe.list_steps()
