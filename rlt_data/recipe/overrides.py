"""`--set a.b=c`: single values of a recipe, set from the command line."""

from __future__ import annotations

from typing import Any

from rlt_data.errors import UsageError
from rlt_data.toml import TomlDocument, parse_typed_value
from rlt_data.toml.documents import MOST_LEVELS


def parse_override(text: str) -> TomlDocument:
    """Read `a.b=c` as a document that sets one key.

    The value is parsed as TOML where it is valid TOML (`8`, `true`, `["a", "b"]`), else it is a string, so
    that names need no quotes. A number in the key is an index into an array of tables: `ingest.1.source=...`.
    Raises `UsageError` where there is no key or no `=`.
    """
    key, sign, value = text.partition("=")
    parts = key.strip().split(".")
    if not sign or not all(part.strip() for part in parts):
        shown = text if len(text) <= 200 else f"{text[:200]}..."
        raise UsageError(f"{shown!r} sets nothing", where="--set", remedy="write --set section.key=value")
    if len(parts) > MOST_LEVELS:
        raise UsageError(f"the key has more than {MOST_LEVELS} parts", where=f"--set {text[:80]}...")
    data: Any = parse_typed_value(value.strip())
    for part in reversed(parts):
        data = {part.strip(): data}
    return TomlDocument(name=f"--set {text}", text="", data=data)


def apply_override(data: dict[str, Any], change: dict[str, Any], *, name: str) -> dict[str, Any]:
    """Merge `change` into `data`; a key of digits is an index, from 0, into an array of tables.

    Raises `UsageError` where the array has no such index, or where the section is turned off.
    """
    merged = dict(data)
    for key, value in change.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[key] = apply_override(below, value, name=name)
        elif isinstance(below, list) and isinstance(value, dict):
            merged[key] = _change_array(below, value, key, name)
        elif below is False and isinstance(value, dict):
            raise UsageError(
                f"{key} is turned off: {key} = false",
                where=name,
                remedy=f"remove {key} = false, or do not set keys of {key}",
            )
        else:
            merged[key] = value
    return merged


def _change_array(array: list[Any], change: dict[str, Any], key: str, name: str) -> list[Any]:
    changed = list(array)
    for position, value in change.items():
        if not position.isdigit() or int(position) >= len(array):
            raise UsageError(
                f"{key} has {len(array)} tables, and none with the index {position!r}",
                where=name,
                remedy=f"indices start at 0: {key}.0 is the first",
            )
        index = int(position)
        inner = isinstance(value, dict) and isinstance(array[index], dict)
        changed[index] = apply_override(array[index], value, name=name) if inner else value
    return changed
