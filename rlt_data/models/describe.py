"""The list that `rlt-data models` prints: every alias, and whether its files are on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlt_data.errors import ModelError
from rlt_data.models.config import read_config_file
from rlt_data.models.hub_cache import find_cached_snapshot
from rlt_data.models.registry import RegistryEntry, list_registry
from rlt_data.settings import Settings, load_settings

ModelState = Literal["local", "missing", "cached", "not cached", "unreadable"]
"""`local` and `missing` are directories; `cached` and `not cached` are hub ids."""


@dataclass(frozen=True)
class ModelDescription:
    """One line of the list.

    `origin` is `built-in` or the settings file; `parameters` are in billions and `context` in tokens, both
    from the files of the model where they are on this machine.
    """

    alias: str
    model: str
    origin: str
    state: ModelState
    revision: str | None
    parameters: float | None
    context: int | None
    about: str | None


def describe_models(settings: Settings | None = None) -> list[ModelDescription]:
    """Describe every alias, the user's own first, from local files alone, without network."""
    settings = settings if settings is not None else load_settings()
    entries = list_registry(settings).values()
    return [_describe(entry) for entry in sorted(entries, key=lambda entry: entry.origin == "built-in")]


def _describe(entry: RegistryEntry) -> ModelDescription:
    path = Path(entry.model).expanduser()
    state: ModelState
    snapshot: Path | None
    if path.is_dir():
        state, snapshot, revision = "local", path, entry.revision
    elif path.is_absolute() or entry.model.startswith((".", "~")):
        state, snapshot, revision = "missing", None, entry.revision
    else:
        try:
            snapshot = find_cached_snapshot(entry.model, entry.revision, weights=True)
            state = "cached" if snapshot else "not cached"
        except ModelError:
            snapshot, state = None, "unreadable"
        revision = snapshot.name if snapshot else entry.revision
    parameters, context = entry.parameters, entry.context
    if snapshot is not None:
        try:
            config = read_config_file(snapshot)
            parameters, context = config.parameters / 1e9, config.context
        except ModelError:
            state = "unreadable"
    return ModelDescription(
        entry.alias, entry.model, entry.origin, state, revision, parameters, context, entry.about
    )
