"""TOML files read into validated settings, with errors that name file, line and the nearest right key.

`tomllib` gives values without their lines and pydantic gives key paths without a file; here the two
are joined. A key path is a tuple such as `("generate", "temperature")`; an integer in it is a place
in an array of tables.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import pydantic

from rlt_data.errors import UsageError

KeyPath = tuple[str | int, ...]
ModelT = TypeVar("ModelT", bound=pydantic.BaseModel)

_KEY_PART = r"(?:[A-Za-z0-9_-]+|\"(?:[^\"\\]|\\.)*\"|'[^']*')"
_KEY = rf"{_KEY_PART}(?:\s*\.\s*{_KEY_PART})*"
_HEADER = re.compile(rf"\s*(?P<open>\[\[?)\s*(?P<key>{_KEY})\s*\]")
_ASSIGNMENT = re.compile(rf"\s*(?P<key>{_KEY})\s*=")
_VALUE_PIECE = re.compile(
    r'"""|\'\'\'|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\'|#|[\[\]{}]',
)


@dataclass(frozen=True)
class TomlDocument:
    """One TOML text with its values and where it came from (a file name, or a name such as `--set`)."""

    name: str
    text: str
    data: dict[str, Any]

    def find_line(self, key_path: Sequence[str | int]) -> int | None:
        """Find the line, from 1, where `key_path` or its longest prefix is set; None where no part is."""
        lines: dict[KeyPath, int] = {}
        for path, number in _iterate_key_lines(self.text):
            lines.setdefault(path, number)
        for length in range(len(key_path), 0, -1):
            line = lines.get(tuple(key_path[:length]))
            if line is not None:
                return line
        return None

    def locate(self, key_path: Sequence[str | int]) -> str:
        """Say where `key_path` is set, as `file:line`."""
        line = self.find_line(key_path)
        return self.name if line is None else f"{self.name}:{line}"

    def sets(self, key_path: Sequence[str | int]) -> bool:
        """Tell whether this document holds a value at `key_path`."""
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
    """Parse TOML `text`; `name` stands in errors. Raises `UsageError` with `name:line`."""
    try:
        return TomlDocument(name, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at ")
        found = re.match(r"line (\d+)", place)
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


def validate_documents(model: type[ModelT], documents: Sequence[TomlDocument]) -> ModelT:
    """Compose `documents` and validate them against `model`.

    Raises `UsageError` that names, for the first wrong key, the file and line where it is set last, the
    key path and the nearest right key; further wrong keys are listed after it.
    """
    return validate_data(model, compose_documents(documents), documents)


def validate_data(model: type[ModelT], data: Mapping[str, Any], documents: Sequence[TomlDocument]) -> ModelT:
    """Validate `data` against `model`, with errors located in `documents` (see `validate_documents`)."""
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        # A misspelt key is also a missing one: the misspelling says more.
        items = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
        problems = [_explain_problem(model, dict(item), documents) for item in items]
        what, where, remedy = problems[0]
        if len(problems) > 1:
            others = [f"{what} ({where})" for what, where, _ in problems[1:6]]
            left_out = len(problems) - 1 - len(others)
            what += "\n  also:  " + "\n         ".join(others)
            what += f"\n         and {left_out} more" if left_out else ""
        raise UsageError(what, where=where, remedy=remedy) from error


def parse_typed_value(text: str) -> Any:
    """Read a value given on the command line: typed as in TOML where it is valid there, else as a string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def suggest_nearest(word: str, known: Sequence[str]) -> str:
    """Make a remedy: the nearest of `known`, or all of them where none is near."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return "known: " + ", ".join(sorted(known)) if known else "remove it"


def _explain_problem(
    model: type[pydantic.BaseModel], problem: dict[str, Any], documents: Sequence[TomlDocument]
) -> tuple[str, str, str | None]:
    path: KeyPath = tuple(problem["loc"])
    visible = _drop_union_tags(path, documents)
    owner = next((d for d in reversed(documents) if d.sets(visible)), documents[-1] if documents else None)
    where = owner.locate(visible) if owner else "configuration"
    dotted = ".".join(str(part) for part in visible)
    if problem["type"] == "extra_forbidden":
        known = sorted(_list_known_keys(model, path[:-1]))
        return f"unknown key {dotted!r}", where, suggest_nearest(str(path[-1]), known)
    if problem["type"] == "missing":
        return f"the key {dotted!r} is missing", where, f"add {path[-1]} = ..."
    message = str(problem["msg"]).removeprefix("Value error, ")
    found = problem.get("input")
    shown = f", found {found!r}" if isinstance(found, str | int | float | bool) and visible else ""
    subject = f"{dotted!r}: " if visible else ""
    return f"{subject}{message[:1].lower()}{message[1:]}{shown}", where, None


def _drop_union_tags(path: KeyPath, documents: Sequence[TomlDocument]) -> KeyPath:
    """Leave out the parts of a pydantic location that name a union's branch, which no file contains."""
    visible: KeyPath = ()
    for position, part in enumerate(path):
        last = position == len(path) - 1
        if any(d.sets((*visible, part)) for d in documents) or last:
            visible = (*visible, part)
    return visible


def _list_known_keys(model: type[pydantic.BaseModel], path: Sequence[str | int]) -> set[str]:
    types: list[Any] = [model]
    for part in path:
        stepped = [inner for kind in types for inner in _step_into(kind, part)]
        types = stepped or types
    keys: set[str] = set()
    for kind in types:
        for branch in _expand_union(kind):
            if isinstance(branch, type) and issubclass(branch, pydantic.BaseModel):
                keys.update(field.alias or name for name, field in branch.model_fields.items())
    return keys


def _step_into(kind: Any, part: str | int) -> Iterator[Any]:
    for branch in _expand_union(kind):
        if isinstance(branch, type) and issubclass(branch, pydantic.BaseModel):
            for name, field in branch.model_fields.items():
                if part in (name, field.alias):
                    yield field.annotation
        elif get_args(branch) and get_origin(branch) is not None:
            yield get_args(branch)[-1] if isinstance(part, str) else get_args(branch)[0]


def _expand_union(kind: Any) -> Iterator[Any]:
    origin = get_origin(kind)
    if origin is Annotated:
        yield from _expand_union(get_args(kind)[0])
    elif origin in (Union, UnionType):
        for branch in get_args(kind):
            yield from _expand_union(branch)
    else:
        yield kind


def _merge_tables(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(left)
    for key, value in right.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merge_tables(merged[key], value)
        else:
            merged[key] = value
    return merged


def _iterate_key_lines(text: str) -> Iterator[tuple[KeyPath, int]]:
    """Yield each table header and key of a TOML text with its line; values that span lines are skipped."""
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
                    place = counts.get(table, -1) + 1
                    counts[table] = place
                    table = (*table, place)
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
    """Insert the current place into a header that goes through an array of tables."""
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
        for part in re.findall(_KEY_PART, key)
    )
