"""The built-in recipes, which are installed with the program."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from rlt_data.errors import UsageError
from rlt_data.suggestions import suggest_name

PACKAGE = "rlt_data_recipes"


def list_built_in_recipes() -> dict[str, Path]:
    """List the built-in recipes by name."""
    spec = find_spec(PACKAGE)
    folders = [Path(folder) for folder in (spec.submodule_search_locations if spec else None) or []]
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.toml"))}


def find_recipe(name: str) -> Path:
    """Find the file that `name` refers to: a path, or the name of a built-in recipe.

    A directory of a recipe's name is ignored: it may be the recipe's output. Raises `UsageError` with the
    nearest name where nothing is found.
    """
    path = Path(name)
    built_in = list_built_in_recipes()
    if path.exists() and not (path.is_dir() and name in built_in):
        return path
    if name not in built_in:
        raise UsageError(
            "there is no such file, and no built-in recipe of that name",
            where=name,
            remedy=suggest_name(path.stem, built_in),
        )
    return built_in[name]
