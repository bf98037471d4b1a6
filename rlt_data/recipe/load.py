"""Recipes read from TOML files, composed from left to right, with overrides on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlt_data.errors import UsageError
from rlt_data.recipe.built_in import find_recipe
from rlt_data.recipe.check import Contradiction, find_contradictions
from rlt_data.recipe.overrides import apply_override, parse_override
from rlt_data.recipe.schema import Recipe, build_recipe_model
from rlt_data.settings import ModelSettings, Settings, load_settings
from rlt_data.toml import TomlDocument, compose_documents, load_document, validate_data


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe and the settings under which it runs."""

    recipe: Recipe
    settings: Settings

    @property
    def lake(self) -> str | None:
        """The lake of the recipe, else that of the user's settings."""
        if self.recipe.lake is not None:
            return self.recipe.lake
        return self.settings.lake


def load_recipe(names: Sequence[str | Path], overrides: Sequence[str] = ()) -> LoadedRecipe:
    """Load recipe files, or built-in recipes by name; a later one overrides earlier ones, key by key.

    `overrides` are texts such as `generate.samples=8`, and override all files. Paths in a recipe are
    relative to the working directory, as they are on the command line.

    Raises `UsageError` for an unknown key (with file, line and the nearest valid key) and for a combination
    of stages that makes no sense (with the reason).
    """
    data, documents = read_documents(names, overrides)
    if {"sft", "grpo", "rl"} & data.keys():
        role = "student" if "student" in data else "teacher"
        raise UsageError(
            f"this recipe trains a {role}", where=documents[0].name, remedy=f"rlt-data train-{role} RECIPE"
        )
    recipe = validate_data(build_recipe_model(), data, documents)
    if not recipe.list_steps():
        raise UsageError(
            "the recipe has no stage", where=documents[0].name, remedy="add a section such as [ingest]"
        )
    contradictions = find_contradictions(recipe)
    if contradictions:
        first = contradictions[0]
        raise UsageError(first.reason, where=_locate(first, documents), remedy=first.remedy)
    settings = merge_settings(recipe.models, recipe.formats, load_settings(), tasks=recipe.tasks)
    return LoadedRecipe(recipe, settings)


def read_documents(
    names: Sequence[str | Path], overrides: Sequence[str]
) -> tuple[dict[str, Any], list[TomlDocument]]:
    """Read and merge recipe files, then apply the overrides; return the values and the documents, in order.

    Raises `UsageError` where none is named, one is missing or is not TOML, or an override sets nothing.
    """
    if not names:
        raise UsageError("no recipe is named", remedy="name a TOML file or a built-in recipe")
    documents = [load_document(find_recipe(str(name))) for name in names]
    data = compose_documents(documents)
    for text in overrides:
        change = parse_override(text)
        data = apply_override(data, change.data, name=change.name)
        documents.append(change)
    return data, documents


def _locate(contradiction: Contradiction, documents: Sequence[TomlDocument]) -> str:
    """Return file and line of a contradiction, in the last document that sets its key."""
    step, key = contradiction.step, contradiction.key
    ends: list[tuple[str, ...]] = [(key,), ()] if key else [()]
    starts: list[tuple[str | int, ...]] = [(step.section, step.index), (step.section,)]
    for end in ends:
        for document in reversed(documents):
            for start in starts:
                if document.sets((*start, *end)):
                    return document.locate((*start, *end))
    return documents[-1].name


def merge_settings(
    models: Mapping[str, ModelSettings],
    formats: Mapping[str, Mapping[str, Any]],
    own: Settings,
    *,
    tasks: Mapping[str, Mapping[str, Any]] | None = None,
) -> Settings:
    """Add a recipe's models, formats and tasks to the user's settings, whose paths become absolute."""
    theirs = {
        name: model.model_copy(update={"model": own.resolve_path(model.model)})
        for name, model in own.models.items()
    }
    return Settings(
        lake=own.lake_uri,
        models={**theirs, **models},
        formats={**own.formats, **formats},
        tasks={**{name: _anchor_task(task, own) for name, task in own.tasks.items()}, **(tasks or {})},
    )


def _anchor_task(task: Mapping[str, Any], own: Settings) -> Mapping[str, Any]:
    source = task.get("source")
    dataset = source.get("dataset") if isinstance(source, Mapping) else None
    if not isinstance(source, Mapping) or not isinstance(dataset, str):
        return task
    return {**task, "source": {**source, "dataset": own.resolve_path(dataset)}}
