"""TOML documents: parsed, merged, and searched for the line of a key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlt_data.errors import UsageError
from rlt_data.toml.lines import KeyPath, iterate_key_lines


@dataclass(frozen=True)
class TomlDocument:
    """One TOML text with its values and where it came from (a file name, or a name such as `--set`)."""

    name: str
    text: str
    data: dict[str, Any]

    def find_line(self, key_path: Sequence[str | int]) -> int | None:
        """Find the line, from 1, where `key_path` or its longest prefix is set; None where no part is."""
        lines: dict[KeyPath, int] = {}
        for path, number in iterate_key_lines(self.text):
            lines.setdefault(path, number)
        for length in range(len(key_path), 0, -1):
            line = lines.get(tuple(key_path[:length]))
            if line is not None:
                return line
        return None

    def locate(self, key_path: Sequence[str | int]) -> str:
        """Return where `key_path` is set, as `file:line`, or the file alone where it is not set."""
        line = self.find_line(key_path)
        return self.name if line is None else f"{self.name}:{line}"

    def sets(self, key_path: Sequence[str | int]) -> bool:
        """Return whether this document sets a value at `key_path`."""
        value: Any = self.data
        for part in key_path:
            if isinstance(value, Mapping) and part in value:
                value = value[str(part)]
            elif isinstance(value, list) and isinstance(part, int) and part < len(value):
                value = value[part]
            else:
                return False
        return True


def parse_document(text: str, name: str) -> TomlDocument:
    """Parse TOML `text`; errors refer to it as `name`. Raises `UsageError` with `name:line`."""
    try:
        return TomlDocument(name, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        message, _, location = str(error).partition(" (at ")
        found = re.match(r"line (\d+)", location)
        line = int(found.group(1)) if found else max(1, len(text.splitlines()))
        raise UsageError(
            f"this is not valid TOML: {message}", where=f"{name}:{line}", remedy="correct the line"
        ) from error


def load_document(path: Path) -> TomlDocument:
    """Read and parse one TOML file. Raises `UsageError` if it is missing, unreadable or not TOML."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError("there is no such file", where=str(path), remedy="check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the file cannot be read: {error}", where=str(path)) from error
    return parse_document(text, str(path))


def compose_documents(documents: Sequence[TomlDocument]) -> dict[str, Any]:
    """Merge documents from left to right: tables key by key, every other value replaced by the later."""
    merged: dict[str, Any] = {}
    for document in documents:
        merged = _merge_tables(merged, document.data)
    return merged


def parse_typed_value(text: str) -> Any:
    """Parse a value given on the command line: as TOML where it is valid TOML, else as a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _merge_tables(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(left)
    for key, value in right.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge_tables(merged[key], value)
        else:
            merged[key] = value
    return merged
