"""Write the result of a query as a table, CSV, JSON or Parquet."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING, Any, Literal, assert_never

import pyarrow as pa
from rich.table import Table as RichTable

from rlt_data.atomic_files import name_kind, write_aside
from rlt_data.console import VisibleConsole, draw_table, make_cell
from rlt_data.errors import UsageError
from rlt_data.terminal import escape_json, exact_stdout, print_drawn, print_note, show_line

from .common import make_console

if TYPE_CHECKING:
    from rlt_data.lake import QueryStream

Format = Literal["table", "csv", "json", "parquet"]

CELL_WIDTH = 160
LIST_ITEMS = 4
_STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/null")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_ROW_GROUP_BYTES = 32 * 2**20


def check_output(output: Path | None) -> None:
    """Raise `UsageError` where `output` is anything but a file, a new path, or a stream of this program.

    Opening a named pipe without a reader would wait for ever, and a device is no place for a result.
    """
    if output is None or str(output) in _STREAMS or str(output).startswith(("/dev/fd/", "/proc/self/fd/")):
        return
    if output.exists() and not output.is_file():
        raise UsageError(
            f"the output is {name_kind(output.stat().st_mode)}",
            where=f"--output {output}",
            remedy="name a file, or /dev/stdout; or omit --output",
        )


def write_result(
    result: QueryStream,
    format: Format,
    *,
    output: Path | None = None,
    rows: int = 100,
    full: bool = False,
    spreadsheet_safe: bool = False,
) -> None:
    """Write `result` to the file `output`, or to stdout, batch by batch. Parquet needs a file.

    A table shows the first `rows` rows (0: all), fetches no more, and shortens long cells unless `full`; the
    other formats hold everything. CSV holds lists and structures as JSON, and with `spreadsheet_safe` an
    apostrophe before texts that a spreadsheet would run as formulas. JSON has one row per line, and NaN
    becomes null. A file that exists is replaced when all is written.
    """
    match format:
        case "table":
            text = render_table(result, rows=rows, full=full, console=make_console(plain=output is not None))
            if output is None:
                print_drawn(text)
            else:
                with _replace_file(output) as path:
                    path.write_text(text, encoding="utf-8")
        case "csv":
            with open_output(output) as stream:
                _write_csv(result, stream, spreadsheet_safe=spreadsheet_safe)
        case "json":
            with open_output(output) as stream:
                _write_json(result, stream)
        case "parquet":
            assert output is not None
            with _replace_file(output) as path:
                _write_parquet(result, path)
        case _:
            assert_never(format)


def render_table(
    result: QueryStream, *, rows: int = 100, full: bool = False, console: VisibleConsole | None = None
) -> str:
    """Draw the first `rows` rows as text (0: all). Line breaks and tabs in cells are shown as escapes."""
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    for field in result.schema:
        numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        table.add_column(make_cell(field.name), justify="right" if numeric else "left", overflow="fold")
    more = False
    for row in _iterate_rows(result):
        if rows and table.row_count == rows:
            more = True
            break
        table.add_row(*(make_cell(_format_cell(value, full=full)) for value in row))
    text = draw_table(console or make_console(), table)
    if more:
        text += f"... and more rows after the first {rows:,} (rlt-data sql --rows 0 shows all)\n"
    elif table.row_count == 0:
        text += "(no rows)\n"
    return text


def _write_csv(result: QueryStream, stream: IO[str], *, spreadsheet_safe: bool) -> None:
    import csv

    formulas = 0

    def convert(value: Any) -> Any:
        nonlocal formulas
        if isinstance(value, list | dict):
            return json.dumps(_convert_to_json(value), ensure_ascii=False)
        if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
            formulas += 1
            return f"'{value}" if spreadsheet_safe else value
        return value

    def write(line: str) -> None:
        stream.write(line[:-2] + "\n")

    # The writer quotes the characters that end its lines, so both are named, and one is written.
    writer = csv.writer(SimpleNamespace(write=write), lineterminator="\r\n")
    writer.writerow(map(convert, result.schema.names))
    for row in _iterate_rows(result):
        writer.writerow(map(convert, row))
    if formulas and not spreadsheet_safe:
        print_note(
            f"note: a spreadsheet would run {formulas:,} cells of this CSV as formulas: they begin with =, "
            "+, -, @, a tab or a carriage return; --spreadsheet-safe quotes them"
        )


def _write_json(result: QueryStream, stream: IO[str]) -> None:
    separator = "[\n"
    names = result.schema.names
    for row in _iterate_rows(result):
        record = dict(zip(names, map(_convert_to_json, row), strict=True))
        stream.write(separator + escape_json(json.dumps(record, ensure_ascii=False)))
        separator = ",\n"
    stream.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_parquet(result: QueryStream, path: Path) -> None:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, result.schema) as writer:
        held: list[pa.RecordBatch] = []
        size = 0
        for batch in result:
            held.append(batch)
            size += batch.nbytes
            if size >= _ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(held))
                held, size = [], 0
        writer.write_table(pa.Table.from_batches(held, result.schema))


def _iterate_rows(result: QueryStream) -> Iterator[tuple[Any, ...]]:
    for batch in result:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _convert_to_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_convert_to_json(inner) for inner in value]
    if isinstance(value, dict):
        return {key: _convert_to_json(inner) for key, inner in value.items()}
    if isinstance(value, datetime | date):
        return value.isoformat()
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)


def _format_cell(value: Any, *, full: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value + 0.0:.6g}"  # no negative zero
    if isinstance(value, list) and not full and len(value) > LIST_ITEMS:
        start = ", ".join(_format_cell(inner, full=full) for inner in value[:LIST_ITEMS])
        return f"[{start}, ... {len(value) - LIST_ITEMS} more]"
    if isinstance(value, list):
        return "[" + ", ".join(_format_cell(inner, full=full) for inner in value) + "]"
    text = str(value)
    if full:
        return show_line(text)
    # Only what may be shown is escaped.
    shown = show_line(text[: CELL_WIDTH + 1])
    return shown if len(shown) <= CELL_WIDTH else shown[: CELL_WIDTH - 3] + "..."


@contextmanager
def open_output(output: Path | None) -> Iterator[IO[str]]:
    """Yield the stream of the file `output`, which is replaced when all is written, or of stdout."""
    if output is None:
        with exact_stdout() as stream:
            yield stream
        return
    with _replace_file(output) as path, path.open("w", encoding="utf-8", newline="") as stream:
        yield stream


@contextmanager
def _replace_file(output: Path) -> Iterator[Path]:
    """Yield the path to write to: one that replaces a regular file at the end, or a link or stream."""
    try:
        with _choose_path(output) as path:
            yield path
    except OSError as error:
        # A full disk: the system names no file.
        if error.filename is None and error.errno in _DISK_ERRORS:
            error.filename = str(output)
        raise


@contextmanager
def _choose_path(output: Path) -> Iterator[Path]:
    if output.parent.is_dir() and (not os.path.lexists(output) or stat.S_ISREG(output.lstat().st_mode)):
        with write_aside(output) as path:
            yield path
    else:
        yield output
