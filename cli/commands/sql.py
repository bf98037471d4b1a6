"""`rlt-data sql`: query the lake."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from rlt_data.errors import LakeError, UsageError
from rlt_data.lake import QueryLimits
from rlt_data.lake.sql.execution import MOST
from rlt_data.terminal import print_note

from ..common import LakeOption, VerifyOption, open_lake, read_number
from ..results import Format, check_output, write_result

if TYPE_CHECKING:
    from rlt_data.lake import Lake

DEFAULT_LIMITS = QueryLimits()
TIMEOUT = 600.0
MOST_BYTES = 4 << 20
"""The longest query."""


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
            parser=read_number(int, 0, 10**12),
            metavar="INTEGER",
            help="Show at most this many rows of a table; 0 shows all. Other formats hold all rows.",
        ),
    ] = 100,
    full: Annotated[bool, typer.Option("--full", help="Do not shorten long cells of a table.")] = False,
    allow_files: Annotated[
        bool, typer.Option("--allow-files", help="Let the query read and write files.")
    ] = False,
    incomplete: Annotated[
        bool,
        typer.Option(
            "--incomplete",
            help="Query what is left of tables that have lost rows, with a warning on stderr.",
        ),
    ] = False,
    spreadsheet_safe: Annotated[
        bool,
        typer.Option(
            "--spreadsheet-safe",
            help="In CSV, put an apostrophe before cells that a spreadsheet would run as formulas.",
        ),
    ] = False,
    memory: Annotated[
        float,
        typer.Option(
            parser=read_number(float, 0.1, MOST),
            metavar="GIB",
            help="Memory for the query, in GiB; what needs more spills to disk.",
        ),
    ] = DEFAULT_LIMITS.memory_gib,
    spill: Annotated[
        float,
        typer.Option(
            parser=read_number(float, 0, MOST),
            metavar="GIB",
            help="Space for what is spilled to the temporary folder, in GiB.",
        ),
    ] = DEFAULT_LIMITS.spill_gib,
    timeout: Annotated[
        float,
        typer.Option(
            parser=read_number(float, 0, MOST),
            metavar="SECONDS",
            help="Stop a query that works for longer than this; 0: no limit.",
        ),
    ] = TIMEOUT,
    lake: LakeOption = None,
    verify: VerifyOption = False,
) -> None:
    """Query the lake in SQL (DuckDB), read-only. "traces@3" is version 3 of the table traces.

    The view `token_scores` has one row per scored token, with its text; `evaluation_lineage` has one row per
    evaluation, with the runs and models that led to it. A query of a table that has lost rows is refused,
    unless --incomplete.
    """
    if spreadsheet_safe and format != "csv":
        raise UsageError("--spreadsheet-safe is for CSV", remedy="add --format csv")
    limits = QueryLimits(memory, spill, timeout or None)
    check_output(output)
    opened = open_lake(lake, verify=verify)
    text = _find_query(query)
    if text is None:
        from .sql_prompt import open_prompt

        open_prompt(opened, format, allow_files=allow_files, limits=limits, incomplete=incomplete)
        return
    if format == "parquet" and output is None:
        raise UsageError("Parquet cannot be written to stdout", where="--format", remedy="add --output FILE")
    if incomplete:
        _warn_of_losses(opened, text)
    with opened.stream_sql(text, allow_files=allow_files, limits=limits, incomplete=incomplete) as result:
        write_result(result, format, output=output, rows=rows, full=full, spreadsheet_safe=spreadsheet_safe)


def _warn_of_losses(lake: Lake, query: str) -> None:
    from rlt_data.lake.sql.query import find_query_losses

    try:
        found = find_query_losses(lake, query)
    except LakeError as error:
        print_note(f"warning: {error.what}")
        return
    for damage in found:
        whose = f" that run {damage.run_id} ({damage.stage}) wrote" if damage.run_id else ""
        print_note(f"warning: table {damage.table} {damage.what}{whose}; `rlt-data verify` shows more")


def _find_query(query: str | None) -> str | None:
    if query == "-" or (query is None and not sys.stdin.isatty()):
        return _read_bounded(sys.stdin.buffer, "stdin")
    if query is not None and _names_file(query):
        with Path(query).open("rb") as stream:
            return _read_bounded(stream, query)
    return query


def _read_bounded(stream: BinaryIO, where: str) -> str:
    content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise UsageError(
            f"the query is larger than {MOST_BYTES >> 20} MiB",
            where=where,
            remedy="check what is piped or named",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"the query is not UTF-8: {error}", where=where) from error


def _names_file(query: str) -> bool:
    try:
        return Path(query).is_file()
    except OSError:  # The query is too long for a file name.
        return False
