"""Which layout a source has: named, mapped, or told by its columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from rlt_data.errors import UsageError
from rlt_data.sources.layouts.base import Layout, Row
from rlt_data.sources.layouts.conversations import BespokeStratos, Messages, OpenThoughts, Sharegpt
from rlt_data.sources.layouts.generated import ReasoningGym
from rlt_data.sources.layouts.gpqa import Gpqa
from rlt_data.sources.layouts.problems import Aime, Gsm8k, Math, Math500, Plain
from rlt_data.sources.layouts.s1k import S1k
from rlt_data.sources.layouts.traces import Traces
from rlt_data.sources.rows import BadRow, SourceRow
from rlt_data.suggestions import suggest_name

LAYOUTS: tuple[Layout, ...] = (
    BespokeStratos(),
    S1k(),
    OpenThoughts(),
    Gsm8k(),
    Math(),
    Math500(),
    Aime(),
    Gpqa(),
    Traces(),
    ReasoningGym(),
    Messages(),
    Sharegpt(),
    Plain(),
)
"""Every layout; a new one is a class and a line here."""

SAMPLE_ROWS = 64
"""How many rows are looked at to tell a layout."""

# Columns that often hold what the program calls question, solution, answer and trace.
_USUAL_NAMES = {
    "question": ("prompt", "problem", "instruction", "query", "input", "text"),
    "solution": ("response", "output", "completion", "rationale", "explanation"),
    "answer": ("final_answer", "target", "label", "expected_answer", "ground_truth"),
    "trace": ("reasoning", "thinking", "reasoning_content", "cot", "thought", "trajectory"),
}


def find_layout(name: str) -> Layout:
    """Find a layout by its name. Raises `UsageError` with the nearest ones."""
    names = [layout.name for layout in LAYOUTS]
    for layout in LAYOUTS:
        if layout.name == name.casefold().replace("_", "-"):
            return layout
    raise UsageError(f"there is no layout {name!r}", remedy=suggest_name(name, names))


def rename_columns(values: Mapping[str, Any], mapping: Mapping[str, str]) -> dict[str, Any]:
    """Give columns the names that a layout reads: `mapping` leads from those to the file's own.

    A column that already has such a name and is not meant stays as NAME.original.
    """
    sources = set(mapping.values())
    renamed = {
        f"{name}.original" if name in mapping else name: value
        for name, value in values.items()
        if name not in sources
    }
    renamed |= {name: values[column] for name, column in mapping.items() if column in values}
    return renamed


def recognize_layout(
    rows: Iterable[SourceRow | BadRow],
    *,
    where: str,
    layout: str | None = None,
    mapping: Mapping[str, str] | None = None,
) -> Layout | None:
    """Tell the layout of a source from its first good rows; None where there are none.

    A named layout is taken as it is. Otherwise those fit that have a signature all of whose columns are
    there, and whose values agree; the one with the longest such signature is taken, and of equal ones
    the one that looked into the values. Raises `UsageError` where none fits, where two fit equally, or
    where `mapping` names a column that is not there.
    """
    mapping = mapping or {}
    named = None if layout is None else find_layout(layout)
    _check_fields(mapping, named)
    sample = [row.values for row in islice((r for r in rows if isinstance(r, SourceRow)), SAMPLE_ROWS)]
    if not sample:
        return None
    found = dict.fromkeys(name for values in sample for name in values)
    _check_columns(mapping, list(found), where)
    if named is not None:
        return named
    renamed = [rename_columns(values, mapping) for values in sample]
    return _choose(renamed, list(found), where)


def _choose(sample: Sequence[Mapping[str, Any]], found: Sequence[str], where: str) -> Layout:
    columns = {name.casefold() for values in sample for name in values}
    fitting: list[tuple[int, bool, Layout]] = []
    for layout in LAYOUTS:
        lengths = [len(signature) for signature in layout.signatures if columns.issuperset(signature)]
        if lengths and layout.agrees([Row(values) for values in sample]):
            fitting.append((max(lengths), layout.looks_into_values, layout))
    if not fitting:
        raise UsageError(
            "the layout cannot be told from the columns: " + ", ".join(found),
            where=where,
            remedy=f"map the columns, such as {_suggest_mapping(found)}, or name a layout with --layout:\n"
            + describe_layouts(),
        )
    best = max(entry[:2] for entry in fitting)
    chosen = [layout for *rank, layout in fitting if tuple(rank) == best]
    if len(chosen) > 1:
        raise UsageError(
            f"the columns fit several layouts equally well: {', '.join(layout.name for layout in chosen)}",
            where=f"{where}: {', '.join(found)}",
            remedy="name one: " + " or ".join(f"--layout {layout.name}" for layout in chosen),
        )
    return chosen[0]


def describe_layouts() -> str:
    """List the layouts with their columns, one a line."""
    return "\n".join(f"         {layout.name}: {layout.about}" for layout in LAYOUTS)


def _suggest_mapping(found: Sequence[str]) -> str:
    """Write an example of `--map` with columns that are there."""
    pairs: dict[str, str] = {}
    folded = {name.casefold(): name for name in found}
    for field, usual in _USUAL_NAMES.items():
        column = next((folded[name] for name in (field, *usual) if name in folded), None)
        if column is not None and column not in pairs.values():
            pairs[field] = column
    unused = [name for name in found if name not in pairs.values()]
    for field in ("question", "solution"):
        if field not in pairs and not (field == "solution" and "answer" in pairs):
            pairs[field] = unused.pop(0) if unused else "COLUMN"
    return "--map " + ",".join(f"{field}={column}" for field, column in pairs.items())


def _check_fields(mapping: Mapping[str, str], layout: Layout | None) -> None:
    known = list(dict.fromkeys(name for one in ([layout] if layout else LAYOUTS) for name in one.columns))
    folded = {name.casefold() for name in known}
    for name in mapping:
        if name.casefold() not in folded:
            raise UsageError(
                f"no layout reads {name!r}"
                if layout is None
                else f"layout {layout.name} does not read {name!r}",
                where="--map",
                remedy=suggest_name(name, known, otherwise="map question, solution, answer or trace"),
            )
    columns = list(mapping.values())
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise UsageError(f"the column {twice[0]!r} is mapped twice", where="--map")


def _check_columns(mapping: Mapping[str, str], found: Sequence[str], where: str) -> None:
    for column in mapping.values():
        if column not in found:
            raise UsageError(
                f"there is no column {column!r} to map",
                where=where,
                remedy=suggest_name(column, found),
            )
