"""The structure of an answer: lists, sets, tuples, intervals, unions, matrices, equations, and values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from rlt_data.tasks.grading.math.limits import check_items

Kind = Literal["value", "list", "bracketed", "union", "matrix", "determinant"]

_OPENING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\lbrace": r"\rbrace", r"\langle": r"\rangle"}
_CLOSING = frozenset(_OPENING.values())
_TOKENS = re.compile(r"\\[a-zA-Z]+|\\.|.", re.DOTALL)
_MATRIX = re.compile(r"\\begin\s*\{(?P<name>[bpvBV]?(?:small)?matrix|array)\}(?:\{[lcr| ]*\})?")
_MEMBER = re.compile(r"^\s*[a-zA-Z](?:_\{?\w\}?)?\s*\\in\s+|^\s*[a-zA-Z]\s*\\in(?=[\[(\\{])")
# A name before what has brackets: D = (0, 1), (x, y) = (1, 2), \vec{v} = \begin{pmatrix}...
_ASSIGNMENT = re.compile(
    r"^\s*\(?\s*(?:\\vec|\\text|\\mathbf|\\boldsymbol)?\s*\{?\\?[a-zA-Z]+\}?(?:_\{?\w+\}?)?(?:\s*,\s*[a-zA-Z])*\s*\)?"
    r"\s*=\s*(?=\(|\[|\\\{|\\begin)"
)


@dataclass(frozen=True)
class Structure:
    """An answer taken apart. `brackets` are those around it, such as `[` and `)` of an interval.

    A value has its text; everything else has parts, a matrix as many as it has cells, in `columns` columns.
    """

    kind: Kind
    text: str
    parts: tuple[Structure, ...] = ()
    brackets: tuple[str, str] = ("", "")
    columns: int = 0


def parse_structure(text: str) -> Structure:
    """Take the text of a normalised answer apart. Raises `OverLimitError` where it has too many items."""
    text = _MEMBER.sub("", text.strip())
    text = _ASSIGNMENT.sub("", text)
    unions = split_top_level(text, (r"\cup",))
    if len(unions) > 1:
        return Structure("union", text, tuple(parse_structure(part) for part in unions))
    matrix = _parse_matrix(text)
    if matrix is not None:
        return matrix
    items = split_top_level(text, (",", ";"))
    if len(items) > 1:
        return Structure("list", text, tuple(_expand(_name_items(items))))
    bracketed = _parse_brackets(text)
    if bracketed is not None:
        return bracketed
    if r"\pm" in text or r"\mp" in text:
        return Structure("list", text, tuple(_expand([text])))
    return Structure("value", text)


def split_top_level(text: str, separators: tuple[str, ...]) -> list[str]:
    """Split a text at separators outside all brackets. Raises `OverLimitError` where there are too many."""
    parts, start, closing = [], 0, list[str]()
    for token in _TOKENS.finditer(text):
        mark = token[0]
        if mark in _OPENING:
            closing.append(_OPENING[mark])
        elif mark in _CLOSING:
            # An interval such as [1,2) closes with another bracket.
            if closing and (mark == closing[-1] or {mark, closing[-1]} == {")", "]"}):
                closing.pop()
        elif mark in separators and not closing:
            parts.append(text[start : token.start()].strip())
            start = token.end()
    parts.append(text[start:].strip())
    parts = [part for part in parts if part]
    check_items(len(parts))
    return parts


def _parse_brackets(text: str) -> Structure | None:
    tokens = [token[0] for token in _TOKENS.finditer(text)]
    if len(tokens) < 2 or tokens[0] not in _OPENING or tokens[-1] not in _CLOSING:
        return None
    first, last = tokens[0], tokens[-1]
    inner = text[len(first) : len(text) - len(last)]
    if not _is_balanced(inner) or (last != _OPENING[first] and {last, _OPENING[first]} != {")", "]"}):
        return None
    items = split_top_level(inner, (",", ";"))
    is_set = first in (r"\{", r"\lbrace")
    if len(items) < 2 and not is_set:
        return parse_structure(inner) if first in "({[" and len(items) == 1 else None
    if is_set:
        if not items or r"\mid" in inner or ":" in inner or "|" in inner:
            return Structure("value", text)
        return Structure("list", text, tuple(_expand(items)), (r"\{", r"\}"))
    if first == "{":
        return Structure("list", text, tuple(_expand(items)))
    brackets = ("(" if first == r"\langle" else first, ")" if last == r"\rangle" else last)
    return Structure("bracketed", text, tuple(parse_structure(item) for item in items), brackets)


def _is_balanced(text: str) -> bool:
    depth = 0
    for token in _TOKENS.finditer(text):
        if token[0] in _OPENING:
            depth += 1
        elif token[0] in _CLOSING:
            depth -= 1
            if depth < 0:
                return False
    return depth == 0


def _parse_matrix(text: str) -> Structure | None:
    begin = _MATRIX.match(text)
    if begin is None:
        return None
    end = re.search(r"\\end\s*\{" + re.escape(begin["name"]) + r"\}\s*$", text)
    if end is None or r"\begin" in text[begin.end() :]:
        return None
    rows = [row for row in re.split(r"\\\\", text[begin.end() : end.start()]) if row.strip()]
    cells = [[cell.strip() for cell in row.split("&")] for row in rows]
    if not cells or len({len(row) for row in cells}) != 1:
        return None
    check_items(sum(len(row) for row in cells))
    kind: Kind = "determinant" if begin["name"].startswith(("v", "V")) else "matrix"
    parts = tuple(Structure("value", cell) for row in cells for cell in row)
    return Structure(kind, text, parts, columns=len(cells[0]))


def _name_items(items: list[str]) -> list[str]:
    """Drop the repeated names of the values of one variable: x = 1, x = 2, and x = 1, 2, are 1, 2."""
    sides = [item.split("=") for item in items]
    names = {side[0].strip() for side in sides if len(side) == 2}
    if len(names) == 1 and re.fullmatch(r"[a-zA-Z](?:_\{?\w\}?)?", next(iter(names))):
        return [side[-1].strip() for side in sides]
    return items


def _expand(items: list[str]) -> list[Structure]:
    """Take items apart; one with a plus-minus sign is two values."""
    expanded: list[Structure] = []
    for item in items:
        if r"\pm" in item or r"\mp" in item:
            for plus, minus in (("+", "-"), ("-", "+")):
                value = item.replace(r"\pm", plus).replace(r"\mp", minus)
                expanded.append(Structure("value", value.strip().removeprefix("+").strip()))
        else:
            expanded.append(parse_structure(item))
    check_items(len(expanded))
    return expanded
