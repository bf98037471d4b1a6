"""Columns renamed to those that a layout reads (`--map`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlt_data.errors import UsageError
from rlt_data.sources.layouts.base import Layout
from rlt_data.sources.layouts.catalog import LAYOUTS
from rlt_data.suggestions import suggest_name

# Columns that often contain what this program calls question, solution, answer and trace.
_USUAL_NAMES = {
    "question": ("prompt", "problem", "instruction", "query", "input", "text"),
    "solution": ("response", "output", "completion", "rationale", "explanation"),
    "answer": ("final_answer", "target", "label", "expected_answer", "ground_truth"),
    "trace": ("reasoning", "thinking", "reasoning_content", "cot", "thought", "trajectory"),
}


def rename_columns(values: Mapping[str, Any], mapping: Mapping[str, str]) -> dict[str, Any]:
    """Rename the columns of a row: `mapping` leads from the names that a layout reads to those in the row.

    Another column that already has such a name is kept as NAME.original.
    """
    sources = set(mapping.values())
    renamed = {
        f"{name}.original" if name in mapping else name: value
        for name, value in values.items()
        if name not in sources
    }
    renamed |= {name: values[column] for name, column in mapping.items() if column in values}
    return renamed


def check_mapped_names(mapping: Mapping[str, str], layout: Layout | None) -> None:
    """Check the names that `mapping` leads from, and that no column is mapped twice.

    Raises `UsageError` with the nearest name that `layout` reads, or that any layout reads where it is None.
    """
    names = list(dict.fromkeys(name for one in ([layout] if layout else LAYOUTS) for name in one.columns))
    folded = {name.casefold() for name in names}
    for name in mapping:
        if name.casefold() not in folded:
            what = f"no layout reads a column {name!r}"
            if layout is not None:
                what = f"the layout {layout.name} does not read a column {name!r}"
            remedy = suggest_name(name, names, otherwise="map question, solution, answer or trace")
            raise UsageError(what, where="--map", remedy=remedy)
    columns = list(mapping.values())
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise UsageError(f"the column {twice[0]!r} is mapped twice", where="--map")


def check_mapped_columns(mapping: Mapping[str, str], columns: Sequence[str], where: str) -> None:
    """Raise `UsageError` with the nearest column where `mapping` names one that is not in `columns`."""
    for column in mapping.values():
        if column not in columns:
            remedy = suggest_name(column, columns)
            raise UsageError(f"the source has no column {column!r} to map", where=where, remedy=remedy)


def suggest_mapping(columns: Sequence[str]) -> str:
    """Write an example of `--map` with the columns of the source."""
    pairs: dict[str, str] = {}
    folded = {name.casefold(): name for name in columns}
    for field, usual in _USUAL_NAMES.items():
        column = next((folded[name] for name in (field, *usual) if name in folded), None)
        if column is not None and column not in pairs.values():
            pairs[field] = column
    unused = [name for name in columns if name not in pairs.values()]
    for field in ("question", "solution"):
        if field not in pairs and not (field == "solution" and "answer" in pairs):
            pairs[field] = unused.pop(0) if unused else "COLUMN"
    return "--map " + ",".join(f"{field}={column}" for field, column in pairs.items())
