"""Aliases of models: a built-in table, and the user's own in `rlt-data.toml`, which take precedence."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from rlt_data.settings import Settings


@dataclass(frozen=True)
class RegistryEntry:
    """The model of one alias.

    `model` is a hub id or a local path; `origin` is `built-in` or the settings file; `parameters` are in
    billions and `context` is in tokens. `shape` has layers, hidden, feed_forward, heads, key_value_heads
    and vocabulary, so that a training can be planned before the model is downloaded.
    """

    alias: str
    model: str
    origin: str
    revision: str | None = None
    trust_remote_code: bool = False
    parameters: float | None = None
    context: int | None = None
    about: str | None = None
    shape: Mapping[str, int] | None = None


@functools.cache
def load_builtin_registry() -> dict[str, RegistryEntry]:
    """Load the built-in table of public models."""
    text = resources.files("rlt_data.models").joinpath("registry.toml").read_text(encoding="utf-8")
    return {
        alias: RegistryEntry(
            alias=alias,
            model=entry["model"],
            origin="built-in",
            parameters=entry["parameters"],
            context=entry["context"],
            about=entry["about"],
            shape=entry.get("shape"),
        )
        for alias, entry in tomllib.loads(text).items()
    }


def list_registry(settings: Settings) -> dict[str, RegistryEntry]:
    """Return every alias; the user's own replace built-in ones of the same name.

    A user's alias may refer to a built-in one, and then means the same model.
    """
    builtin = load_builtin_registry()
    entries = dict(builtin)
    origin = str(settings.path or "settings")
    for alias, chosen in settings.models.items():
        named = builtin.get(chosen.model)
        entries[alias] = RegistryEntry(
            alias=alias,
            model=named.model if named else settings.resolve_path(chosen.model),
            origin=origin,
            revision=chosen.revision,
            trust_remote_code=chosen.trust_remote_code,
            parameters=named.parameters if named else None,
            context=named.context if named else None,
            about=chosen.about or (named.about if named else None),
            shape=named.shape if named else None,
        )
    return entries
