"""TOML documents: parsed, merged, and searched for the line of a key."""

from __future__ import annotations

import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rlt_data.errors import UsageError
from rlt_data.toml.lines import KEY_PART, KeyPath, iterate_key_lines
from rlt_data.validation import explain_digits

MOST_BYTES = 4 << 20
"""The largest file."""

MOST_LEVELS = 50
"""How deep tables and arrays may be nested."""

# Where `<(command)` and pipes into the program are found.
_OPENED = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
_LONG_KEY = re.compile(rf"(?<![\w-])(?:{KEY_PART}[ \t]*\.[ \t]*){{1000}}")


@dataclass(frozen=True)
class TomlDocument:
    """One TOML text with its values and where it came from (a file name, or a name such as `--set`)."""

    name: str
    text: str
    data: dict[str, Any]

    @cached_property
    def _lines(self) -> Mapping[KeyPath, int]:
        lines: dict[KeyPath, int] = {}
        for path, number in iterate_key_lines(self.text):
            lines.setdefault(path, number)
        return lines

    def find_line(self, key_path: Sequence[str | int]) -> int | None:
        """Find the line, from 1, where `key_path` or its longest prefix is set; None where no part is."""
        for length in range(len(key_path), 0, -1):
            line = self._lines.get(tuple(key_path[:length]))
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
    # Checked before it is parsed, which takes time by the square of the parts of a key.
    if long_key := _LONG_KEY.search(text):
        raise _refuse_depth(f"{name}:{text.count(chr(10), 0, long_key.start()) + 1}")
    try:
        data = tomllib.loads(text)
        check_depth(data, name)
    except RecursionError as error:
        raise _refuse_depth(name) from error
    except ValueError as error:
        message, _, location = explain_digits(error).partition(" (at ")
        found = re.match(r"line (\d+)", location)
        line = int(found.group(1)) if found else max(1, len(text.splitlines()))
        # Only errors of the syntax say where; others are those of a number of thousands of digits.
        where = f"{name}:{line}" if isinstance(error, tomllib.TOMLDecodeError) else name
        raise UsageError(
            f"this is not valid TOML: {message}", where=where, remedy="correct the line"
        ) from error
    return TomlDocument(name, text, data)


def check_depth(data: Any, name: str) -> None:
    """Raise `UsageError` where tables and arrays are nested more than `MOST_LEVELS` deep."""
    level = [data]
    for _ in range(MOST_LEVELS):
        inner = [list(v.values()) if isinstance(v, dict) else v for v in level if isinstance(v, dict | list)]
        if not inner:
            return
        level = [value for values in inner for value in values]
    raise _refuse_depth(name)


def _refuse_depth(where: str) -> UsageError:
    return UsageError(
        f"tables and arrays are nested more than {MOST_LEVELS} deep",
        where=where,
        remedy="no key of this program is that deep",
    )


def load_document(path: Path) -> TomlDocument:
    """Read and parse one TOML file. Raises `UsageError` if it is missing, unreadable or not TOML."""
    return parse_document(_read_text(path), str(path))


def _read_text(path: Path) -> str:
    """Read a file of up to `MOST_BYTES`, without a byte order mark, or a pipe that a shell has opened.

    A named pipe is refused: opening one waits until a program writes to it.
    """
    try:
        mode = path.stat().st_mode
        opened = stat.S_ISFIFO(mode) and str(path).startswith(_OPENED)
        if not (stat.S_ISREG(mode) or opened):
            kind = "a named pipe" if stat.S_ISFIFO(mode) else "neither a file nor a pipe"
            raise UsageError(f"this is {kind}", where=str(path), remedy="name a file, or use /dev/stdin")
        with path.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise UsageError(
                f"the file is larger than {MOST_BYTES >> 20} MiB", where=str(path), remedy="check the path"
            )
        text = content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError("there is no such file", where=str(path), remedy="check the path") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the file cannot be read: {error}", where=str(path)) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def compose_documents(documents: Sequence[TomlDocument]) -> dict[str, Any]:
    """Merge documents from left to right: tables key by key, every other value replaced by the later."""
    merged: dict[str, Any] = {}
    for document in documents:
        merged = _merge_tables(merged, document.data)
    return merged


def parse_typed_value(text: str) -> Any:
    """Parse a value given on the command line: as TOML where it is one TOML value, else as a string."""
    try:
        data = tomllib.loads(f"value = {text}")
        # What follows a value, in lines of its own or as a comment, shows that it was meant as text.
        if len(data) == 1 and not _ends_in_comment(text):
            check_depth(data, text[:80])
            return data["value"]
    except (ValueError, RecursionError):
        pass
    return text


def _ends_in_comment(text: str) -> bool:
    try:
        tomllib.loads(f"value = {text} =")
    except ValueError:
        return False
    return True


def _merge_tables(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(left)
    for key, value in right.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge_tables(merged[key], value)
        else:
            merged[key] = value
    return merged
