"""CSV and TSV files. A damaged record (wrong length, not UTF-8, open quote) makes one `BadRow`."""

from __future__ import annotations

import codecs
import csv
from collections import deque
from collections.abc import Iterator
from io import TextIOWrapper
from typing import BinaryIO

from rlt_data.errors import InputError
from rlt_data.sources.files.json_lines import remove_byte_order_mark
from rlt_data.sources.rows import BadRow, SourceRow, refuse_repeated_columns
from rlt_data.sources.values import escape_bytes, is_unicode

MAX_RECORD_LINES = 20_000
"""A record with more lines than this is treated as one whose quote is never closed."""

_DELIMITERS = (",", "\t", ";", "|")
_FIELD_LIMIT = 1 << 30


def read_csv(
    stream: BinaryIO, delimiter: str | None = None, record_lines: int = MAX_RECORD_LINES
) -> Iterator[SourceRow | BadRow]:
    """Read the records below a header line.

    `delimiter` defaults to the most frequent of comma, tab, semicolon and bar in the header. Empty fields
    are missing values; lines without any text are not rows. Raises `InputError` where the header cannot be
    read or names a column twice.
    """
    lines = _Lines(stream)
    first = lines.peek()
    delimiter = delimiter or max(_DELIMITERS, key=first.count)
    records = _read_records(lines, delimiter, record_lines)
    header = next(records, None)
    if header is None:
        return
    if isinstance(header, BadRow):
        raise InputError(f"the header line cannot be read: {header.detail}", where=header.content)
    columns = _name_columns(header)
    number = 0
    for record in records:
        if isinstance(record, BadRow):
            yield BadRow(number, record.reason, record.detail, record.content)
        elif not any(record):
            continue
        elif not all(map(is_unicode, record)):
            detail = f"the record that ends in line {lines.number} contains bytes that are not UTF-8"
            yield BadRow(number, "encoding_error", detail, escape_bytes(delimiter.join(record)))
        elif len(record) != len(columns):
            detail = (
                f"line {lines.number} has {len(record)} fields, expected {len(columns)}: {', '.join(columns)}"
            )
            yield BadRow(number, "ragged_row", detail, delimiter.join(record))
        else:
            yield SourceRow(
                number, {name: field or None for name, field in zip(columns, record, strict=True)}
            )
        number += 1


class _Lines(Iterator[str]):
    """The lines of a file. Those of the current record are remembered, and can be put back."""

    def __init__(self, stream: BinaryIO) -> None:
        # Bytes that are not UTF-8 become surrogates, so that only their own record is lost.
        self._text = TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
        self._waiting: deque[str] = deque()
        self.record: list[str] = []
        self.number = 0

    def peek(self) -> str:
        """Return the first line, without a byte order mark, and keep it to be read."""
        line = self._text.readline()
        remove_byte_order_mark(line[:2].encode("utf-8", "surrogateescape"))
        line = line.removeprefix(codecs.BOM_UTF8.decode("utf-8"))
        if line:
            self._waiting.append(line)
        return line

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else self._text.readline()
        if not line:
            raise StopIteration
        self.number += 1
        self.record.append(line)
        return line

    def put_back_all_but_first(self) -> str:
        """Put the record's lines back, except the first, which is returned."""
        first, *rest = self.record
        self._waiting.extendleft(reversed(rest))
        self.number -= len(rest)
        return first


def _read_records(lines: _Lines, delimiter: str, record_lines: int) -> Iterator[list[str] | BadRow]:
    previous_limit = csv.field_size_limit(_FIELD_LIMIT)
    try:
        while True:
            lines.record.clear()
            try:
                # One reader per record: a reader that failed inside quotes would continue inside them.
                record = next(csv.reader(_limit_lines(lines, record_lines), delimiter=delimiter, strict=True))
            except StopIteration:
                return
            except csv.Error as error:
                first = lines.put_back_all_but_first()
                detail = f"line {lines.number}: {error}"
                yield BadRow(None, "malformed_csv", detail, escape_bytes(first.rstrip("\r\n")))
            else:
                yield record
    finally:
        csv.field_size_limit(previous_limit)


def _limit_lines(lines: _Lines, most: int) -> Iterator[str]:
    for _, line in zip(range(most), lines, strict=False):
        yield line


def _name_columns(header: list[str]) -> list[str]:
    names = [name.strip() or f"column_{index}" for index, name in enumerate(header)]
    refuse_repeated_columns(names, "rename one of them in the first line of the file")
    return names
