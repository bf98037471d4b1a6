"""`rlt-data sql`: query the lake."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rlt_data.errors import UsageError

from ..common import LakeOption, VerifyOption, open_lake
from ..results import Format, write_result

if TYPE_CHECKING:
    from rlt_data.lake import Lake


def command(
    query: Annotated[
        str | None,
        typer.Argument(
            help="An SQL query, a file with one, or - to read it from stdin. Default: open a prompt."
        ),
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="Format of the result.")] = "table",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file instead of stdout.")
    ] = None,
    rows: Annotated[
        int,
        typer.Option(
            min=0,
            max=10**12,
            help="Show at most this many rows of a table; 0 shows all. Other formats hold all rows.",
        ),
    ] = 100,
    full: Annotated[bool, typer.Option("--full", help="Do not shorten long cells of a table.")] = False,
    allow_files: Annotated[
        bool, typer.Option("--allow-files", help="Let the query read and write files.")
    ] = False,
    lake: LakeOption = None,
    verify: VerifyOption = False,
) -> None:
    """Query the lake in SQL (DuckDB), read-only. "traces@3" is version 3 of the table traces.

    The view `token_scores` has one row per scored token, with its text.
    """
    opened = open_lake(lake, verify=verify)
    text = _find_query(query)
    if text is None:
        from .sql_prompt import open_prompt

        open_prompt(opened, format, allow_files=allow_files)
        return
    run_query(opened, text, format, output=output, rows=rows, full=full, allow_files=allow_files)


def run_query(
    lake: Lake,
    query: str,
    format: Format,
    *,
    output: Path | None = None,
    rows: int = 100,
    full: bool = False,
    allow_files: bool = False,
) -> None:
    """Run one query and write its result to `output` or stdout.

    Raises `UsageError` for Parquet on stdout, and `LakeError` with DuckDB's message.
    """
    if format == "parquet" and output is None:
        raise UsageError("Parquet cannot be written to stdout", where="--format", remedy="add --output FILE")
    write_result(lake.sql(query, allow_files=allow_files), format, output=output, rows=rows, full=full)


def _find_query(query: str | None) -> str | None:
    if query == "-" or (query is None and not sys.stdin.isatty()):
        return sys.stdin.read()
    if query is not None and _names_file(query):
        return Path(query).read_text(encoding="utf-8")
    return query


def _names_file(query: str) -> bool:
    try:
        return Path(query).is_file()
    except OSError:  # The query is too long for a file name.
        return False
