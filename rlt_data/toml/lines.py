"""The line of each key in a TOML text, which `tomllib` does not report."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping

KeyPath = tuple[str | int, ...]

KEY_PART = r"(?:[A-Za-z0-9_-]+|\"(?:[^\"\\]|\\.)*\"|'[^']*')"
_KEY = rf"{KEY_PART}(?:\s*\.\s*{KEY_PART})*"
_HEADER = re.compile(rf"\s*(?P<open>\[\[?)\s*(?P<key>{_KEY})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*(?P<key>{_KEY})\s*=")
_VALUE_PIECE = re.compile(
    r'"""|\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#|[\[\]{}]',
)


def iterate_key_lines(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Yield the key path and line, from 1, of each table header and key; the text must be valid TOML.

    Values that span lines are skipped, and so are the keys of inline tables.
    """
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    inside: str | None = None
    depth = 0
    for number, line in enumerate(text.splitlines(), start=1):
        rest = line
        if inside is None and depth == 0:
            header = _HEADER.match(line)
            if header:
                table = _index_arrays(_split_key(header.group("key")), counts)
                if header.group("open") == "[[":
                    index = counts.get(table, -1) + 1
                    counts[table] = index
                    table = (*table, index)
                for length in range(1, len(table) + 1):
                    yield table[:length], number
                continue
            assignment = _ASSIGNMENT.match(line)
            if not assignment:
                continue
            parts = _split_key(assignment.group("key"))
            for length in range(1, len(parts) + 1):
                yield (*table, *parts[:length]), number
            rest = line[assignment.end() :]
        inside, depth = _scan_value(rest, inside, depth)


def _index_arrays(parts: KeyPath, counts: Mapping[KeyPath, int]) -> KeyPath:
    """Insert the current index into a header that goes through an array of tables."""
    path: KeyPath = ()
    for position, part in enumerate(parts):
        path = (*path, part)
        if path in counts and position < len(parts) - 1:
            path = (*path, counts[path])
    return path


def _scan_value(text: str, inside: str | None, depth: int) -> tuple[str | None, int]:
    """Follow quotes and brackets over one line; return the open quote, if any, and the bracket depth."""
    position = 0
    while position < len(text):
        if inside is not None:
            end = text.find(inside, position)
            while inside == '"""' and end > 0 and text[end - 1] == "\\":
                end = text.find(inside, end + 1)
            if end < 0:
                return inside, depth
            position, inside = end + 3, None
            continue
        piece = _VALUE_PIECE.search(text, position)
        if piece is None or piece.group() == "#":
            break
        position = piece.end()
        if piece.group() in ('"""', "'''"):
            inside = piece.group()
        elif piece.group() in "[{":
            depth += 1
        elif piece.group() in "]}":
            depth -= 1
    return inside, depth


def _split_key(key: str) -> KeyPath:
    return tuple(
        tomllib.loads(f"key = {part}")["key"] if part[0] in "\"'" else part
        for part in re.findall(KEY_PART, key)
    )
