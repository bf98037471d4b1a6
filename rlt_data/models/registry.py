"""Short names of models: a built-in table, and the user's own in `rlt-data.toml`, which win."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources

from rlt_data.settings import Settings


@dataclass(frozen=True)
class RegistryEntry:
    """What one alias means.

    `model` is a hub id or a local path; `origin` is `built-in` or the settings file; `parameters` counts
    in billions and `context` in tokens, where known. `shape` has layers, hidden, feed_forward, heads,
    key_value_heads and vocabulary, of models that a training may be planned with before they are here.
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
    """Load the table of public models that comes with the program."""
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
    """List every alias: the user's own over the built-in ones.

    A user's alias may name a built-in one, and then stands for the same model.
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
