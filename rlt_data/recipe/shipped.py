"""The recipes that come with the program."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from rlt_data.errors import UsageError
from rlt_data.suggestions import suggest_name

PACKAGE = "rlt_data_recipes"


def list_shipped_recipes() -> dict[str, Path]:
    """List the shipped recipes by name."""
    spec = find_spec(PACKAGE)
    folders = [Path(place) for place in (spec.submodule_search_locations if spec else None) or []]
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.toml"))}


def find_recipe(name: str) -> Path:
    """Find the file that `name` means: a path, or the name of a shipped recipe.

    A directory is neither: a recipe's output may bear its name. Raises `UsageError` with the nearest names
    where nothing is found.
    """
    path = Path(name)
    shipped = list_shipped_recipes()
    if path.exists() and not (path.is_dir() and name in shipped):
        return path
    if name not in shipped:
        raise UsageError(
            "there is no such file, and no shipped recipe of that name",
            where=name,
            remedy=suggest_name(path.stem, shipped),
        )
    return shipped[name]
