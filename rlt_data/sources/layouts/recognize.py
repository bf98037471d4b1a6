"""The layout of a source: the one that the user names, else the one that fits columns and values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from rlt_data.errors import UsageError
from rlt_data.sources.layouts.base import Layout, Row
from rlt_data.sources.layouts.catalog import LAYOUTS, find_layout
from rlt_data.sources.layouts.mapping import (
    check_mapped_columns,
    check_mapped_names,
    rename_columns,
    suggest_mapping,
)
from rlt_data.sources.rows import BadRow, SourceRow

SAMPLE_ROWS = 64
"""Number of rows from which a layout is recognized."""

_MOST_COLUMNS = 20


def recognize_layout(
    rows: Iterable[SourceRow | BadRow],
    *,
    where: str,
    layout: str | None = None,
    mapping: Mapping[str, str] | None = None,
) -> Layout | None:
    """Recognize the layout of a source from its first good rows; None where there are none.

    The layout named by `layout` is used as it is. Otherwise a layout fits if the rows have all columns of
    one of its signatures, and their values agree. Of the layouts that fit, the one with the longest
    signature is used, and of equally long ones the one that checks the values.

    Raises `UsageError` where none fits, where two fit equally, or where `mapping` names a column that does
    not exist.
    """
    mapping = mapping or {}
    named = None if layout is None else find_layout(layout)
    check_mapped_names(mapping, named)
    sample = [row.values for row in islice((r for r in rows if isinstance(r, SourceRow)), SAMPLE_ROWS)]
    if not sample:
        return None
    columns = list(dict.fromkeys(name for values in sample for name in values))
    check_mapped_columns(mapping, columns, where)
    if named is not None:
        return named
    return _choose([rename_columns(values, mapping) for values in sample], columns, where)


def _choose(sample: Sequence[Mapping[str, Any]], columns: Sequence[str], where: str) -> Layout:
    """Choose the layout of the renamed rows in `sample`; `columns` are those of the source, for messages."""
    folded = {name.casefold() for values in sample for name in values}
    fitting: list[tuple[int, bool, Layout]] = []
    for layout in LAYOUTS:
        lengths = [len(signature) for signature in layout.signatures if folded.issuperset(signature)]
        if lengths and layout.agrees([Row(values) for values in sample]):
            fitting.append((max(lengths), layout.looks_into_values, layout))
    if not fitting:
        raise UsageError(
            f"the columns match no layout: {_list_columns(columns)}",
            where=where,
            remedy=_suggest_layouts(folded, columns),
        )
    best = max(entry[:2] for entry in fitting)
    chosen = [layout for *rank, layout in fitting if tuple(rank) == best]
    if len(chosen) > 1:
        raise UsageError(
            f"the columns match {' and '.join(layout.name for layout in chosen)} equally well: "
            + _list_columns(columns),
            where=where,
            remedy="choose one: " + " or ".join(f"--layout {layout.name}" for layout in chosen),
        )
    return chosen[0]


def _list_columns(columns: Sequence[str]) -> str:
    left_out = len(columns) - _MOST_COLUMNS
    return ", ".join(columns[:_MOST_COLUMNS]) + (f" and {left_out} more" if left_out > 0 else "")


def _suggest_layouts(folded: set[str], columns: Sequence[str]) -> str:
    """Write what to do about columns that match no layout: map them, or choose a layout."""
    lines = [f"map the columns that you need, such as {suggest_mapping(columns)}"]
    nearest = _find_nearest_layout(folded)
    if nearest is not None:
        layout, missing = nearest
        lines.append(f"nearest layout: {layout.name}, which also needs {', '.join(missing)}")
        lines.append(f"    its columns: {layout.about}")
    lines.append("all layouts (--layout): " + ", ".join(layout.name for layout in LAYOUTS))
    return "\n         ".join(lines)


def _find_nearest_layout(folded: set[str]) -> tuple[Layout, tuple[str, ...]] | None:
    """Find the layout with the fewest missing columns, and those columns; None where no column matches."""
    candidates = []
    for layout in LAYOUTS:
        for signature in layout.signatures:
            missing = tuple(name for name in signature if name not in folded)
            if missing and len(missing) < len(signature):
                candidates.append((len(missing), -len(signature), layout, missing))
    if not candidates:
        return None
    _, _, layout, missing = min(candidates, key=lambda candidate: candidate[:2])
    return layout, missing
