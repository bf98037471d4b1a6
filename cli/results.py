"""Write the result of a query as a table, CSV, JSON or Parquet."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import IO, Any, Literal, assert_never

import pyarrow as pa
from rich.table import Table as RichTable

from rlt_data.console import draw_table, make_cell
from rlt_data.terminal import escape_json, show_line

from .common import make_console

Format = Literal["table", "csv", "json", "parquet"]

CELL_WIDTH = 160
LIST_ITEMS = 4


def write_result(
    result: pa.Table, format: Format, *, output: Path | None = None, rows: int = 100, full: bool = False
) -> None:
    """Write `result` to the file `output`, or to stdout. Parquet needs a file.

    A table shows the first `rows` rows (0: all) and shortens long cells unless `full`; the other formats
    hold everything. CSV holds lists and structures as JSON. JSON has one row per line, and NaN becomes null.
    """
    match format:
        case "table":
            text = render_table(result, rows=rows, full=full)
            with _open_output(output) as stream:
                stream.write(text)
        case "csv":
            with _open_output(output) as stream:
                _write_csv(result, stream)
        case "json":
            with _open_output(output) as stream:
                _write_json(result, stream)
        case "parquet":
            import pyarrow.parquet as pq

            assert output is not None
            pq.write_table(result, output)
        case _:
            assert_never(format)


def render_table(result: pa.Table, *, rows: int = 100, full: bool = False) -> str:
    """Draw `result` as text. Line breaks and tabs in cells are shown as escapes."""
    shown = result.slice(0, rows) if rows else result
    table = RichTable(box=None, pad_edge=False, header_style="bold")
    for field in result.schema:
        numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
        table.add_column(make_cell(field.name), justify="right" if numeric else "left", overflow="fold")
    for row in _iterate_rows(shown):
        table.add_row(*(make_cell(_format_cell(value, full=full)) for value in row))
    text = draw_table(make_console(), table)
    hidden = result.num_rows - shown.num_rows
    if hidden:
        text += f"... and {hidden:,} more rows (--rows 0 shows all)\n"
    elif result.num_rows == 0:
        text += "(no rows)\n"
    return text


def _write_csv(result: pa.Table, stream: IO[str]) -> None:
    import csv

    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(result.column_names)
    for row in _iterate_rows(result):
        writer.writerow(
            [
                json.dumps(_convert_to_json(v), ensure_ascii=False) if isinstance(v, list | dict) else v
                for v in row
            ]
        )


def _write_json(result: pa.Table, stream: IO[str]) -> None:
    separator = "[\n"
    for row in _iterate_rows(result):
        record = dict(zip(result.column_names, map(_convert_to_json, row), strict=True))
        stream.write(separator + escape_json(json.dumps(record, ensure_ascii=False)))
        separator = ",\n"
    stream.write("[]\n" if separator == "[\n" else "\n]\n")


def _iterate_rows(result: pa.Table) -> Iterator[tuple[Any, ...]]:
    for batch in result.to_batches(max_chunksize=1024):
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
def _open_output(output: Path | None) -> Iterator[IO[str]]:
    if output is None:
        yield sys.stdout
        return
    with output.open("w", encoding="utf-8", newline="") as stream:
        yield stream
