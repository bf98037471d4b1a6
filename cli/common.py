"""What the commands share: opening the lake, printing, and the common options."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.cells import cell_len
from rich.table import Table as RichTable

from rlt_data.console import VisibleConsole, draw_table, make_cell
from rlt_data.terminal import escape_json, print_drawn, print_note, show_line

if TYPE_CHECKING:
    from rlt_data.lake import Lake
    from rlt_data.lake.tables.damage import Damage

PIPE_WIDTH = 200
COMMON_PANEL = "Common options"

# The lake opened last. An unexpected error writes its traceback there.
_opened: list[Lake] = []


def choose_lake(ctx: typer.Context, value: str | None) -> str | None:
    """Prefer --lake after the command to --lake before it, and both to RLT_DATA_LAKE."""
    source = ctx.get_parameter_source("lake")
    if source is not None and source.name == "COMMANDLINE":
        return value
    before: str | None = ctx.find_root().params.get("lake")
    return before or value


LakeOption = Annotated[
    str | None,
    typer.Option(
        "--lake",
        callback=choose_lake,
        envvar="RLT_DATA_LAKE",
        show_envvar=True,
        help="The lake: a directory or URI. [default: the one in rlt-data.toml, else ./lake]",
        rich_help_panel=COMMON_PANEL,
    ),
]
RecipesArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="RECIPE...",
        help="Recipe files, or names of built-in recipes. A later one overrides earlier ones, key by key.",
    ),
]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON and nothing else.", rich_help_panel=COMMON_PANEL)
]
QuietOption = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Show no progress on stderr.", rich_help_panel=COMMON_PANEL),
]
VerifyOption = Annotated[
    bool,
    typer.Option(
        "--verify",
        help="Read each file of the lake against its recorded SHA-256 before it is used.",
        rich_help_panel=COMMON_PANEL,
    ),
]
ForceOption = Annotated[
    bool,
    typer.Option(
        "--force", help="Run again even if the same run has finished before.", rich_help_panel=COMMON_PANEL
    ),
]


def read_number(kind: type[int] | type[float], least: float, most: float) -> Callable[[Any], Any]:
    """Make the parser of an option that is a number; it refuses a wrong one with the allowed range."""

    from pydantic_core import PydanticCustomError

    def parse(text: Any) -> Any:
        try:
            number = kind(text)
        except ValueError:
            number = None
        if number is None or not least <= number <= most:
            noun = "an integer" if kind is int else "a number"
            shown = repr(text) if len(repr(text)) <= 50 else f"{repr(text)[:50]}..."
            raise PydanticCustomError(
                "number", f"it should be {noun} from {least:,} to {most:,}, found {shown}"
            )
        return number

    return parse


def open_lake(uri: str | None, *, create: bool = False, check: bool = True, verify: bool = False) -> Lake:
    """Open the lake named by `uri`, else by rlt-data.toml, else ./lake.

    `check` and `verify` are as in `Lake`. Without `create`, raises `NoLakeError` where there is no lake, so
    that a misspelled path creates none.
    """
    from rlt_data.lake import Lake
    from rlt_data.settings import load_settings

    lake = Lake(load_settings().lake_uri if uri is None else uri, create=create, check=check, verify=verify)
    _opened[:] = [lake]
    return lake


def warn_of_damage(lake: Lake) -> list[Damage]:
    """Find damage as `doctor` does, and warn on stderr where there is some."""
    found = lake.check()
    if found:
        first = found[0]
        # Its path begins with the table's name, or is the name.
        others = f", and {len(found) - 1} more" if len(found) > 1 else ""
        whose = f" that run {first.run_id} ({first.stage}) wrote" if first.kind == "rows" else ""
        print_note(
            f"warning: the lake is damaged: {first.path} {first.what}{whose}{others}; "
            "`rlt-data verify` names all damage"
        )
    return found


def find_opened_lake() -> Lake | None:
    """Return the lake opened last, or None."""
    return _opened[0] if _opened else None


def make_console(*, plain: bool = False) -> VisibleConsole:
    """Make the console for stdout: as wide as the terminal, or 200 columns in a pipe.

    A `plain` one is for files: 200 columns and no colors.
    """
    if plain:
        return VisibleConsole(width=PIPE_WIDTH, plain=True)
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        return VisibleConsole()
    return VisibleConsole(width=PIPE_WIDTH)


# Minimum width of the column that wraps, in characters.
_WRAPPED_WIDTH = 24


def print_rows(rows: list[dict[str, Any]], *, right: frozenset[str] = frozenset(), wrap: str = "") -> None:
    """Print dictionaries with the same keys as a plain table; the columns in `right` are aligned right.

    Where the terminal is narrow, the column `wrap` is broken into lines; the others are never shortened.
    """
    if not rows:
        return
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        table.add_column(
            name, justify="right" if name in right else "left", no_wrap=name != wrap, overflow="fold"
        )
    for row in rows:
        table.add_row(*(make_cell(value) for value in row.values()))
    console = make_console()
    # Rich would shorten every column to fit a narrow terminal, names and numbers included.
    whole = [
        max(cell_len(show_line(value)) for value in (name, *(row[name] for row in rows)))
        for name in rows[0]
        if name != wrap
    ]
    console.width = max(console.width, sum(whole) + 2 * len(rows[0]) + (_WRAPPED_WIDTH if wrap else 0))
    print_drawn(draw_table(console, table))


def print_json(value: Any) -> None:
    """Print `value` as JSON on stdout, with timestamps and paths as text."""
    print_json_text(json.dumps(value, indent=2, ensure_ascii=False, default=_convert_to_text))


def print_json_text(text: str) -> None:
    """Print JSON on stdout, with characters that act on a terminal escaped."""
    print_drawn(escape_json(text) + "\n")


def _convert_to_text(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)
