"""JSON Lines files: one object per line. A broken line makes one `BadRow`."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import BinaryIO

from rlt_data.errors import InputError
from rlt_data.sources.files.json_values import DECODE_ERRORS, decode_whole_json, explain_error, name_type
from rlt_data.sources.rows import BadRow, SourceRow

MAX_ROW_BYTES = 256 << 20
"""The longest row, so that a file without line ends does not fill the memory."""

_EXCERPT = 100_000


def read_json_lines(stream: BinaryIO, limit: int = MAX_ROW_BYTES) -> Iterator[SourceRow | BadRow]:
    """Read one object per line. Blank lines are not rows; a line of more than `limit` bytes is a `BadRow`."""
    number = 0
    line_number = 0
    while line := stream.readline(limit):
        line_number += 1
        if line_number == 1:
            line = remove_byte_order_mark(line)
        if len(line) >= limit and not line.endswith(b"\n"):
            length = len(line) + _skip_line(stream, limit)
            excerpt = line[:_EXCERPT].decode("utf-8", "backslashreplace")
            yield BadRow(
                number,
                "over_long_row",
                f"line {line_number} has {length:,} bytes; the limit is {limit:,}",
                excerpt,
            )
        elif line.strip():
            yield _read_line(line, number, line_number)
        else:
            continue
        number += 1


def remove_byte_order_mark(start: bytes) -> bytes:
    """Remove the byte order mark that some programs write before UTF-8. Raises `InputError` for UTF-16."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(
            "the file is encoded in UTF-16; expected UTF-8",
            remedy="convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW",
        )
    return start.removeprefix(codecs.BOM_UTF8)


def _read_line(line: bytes, number: int, line_number: int) -> SourceRow | BadRow:
    try:
        text = line.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        detail = f"line {line_number} is not UTF-8: {error.reason} at byte {error.start}"
        return BadRow(
            number, "encoding_error", detail, line.decode("utf-8", "backslashreplace").rstrip("\r\n")
        )
    try:
        value = decode_whole_json(text)
    except DECODE_ERRORS as error:
        reason, detail = explain_error(error)
        return BadRow(number, reason, f"line {line_number}: {detail}", text)
    if not isinstance(value, dict):
        return BadRow(
            number, "not_an_object", f"line {line_number} is {name_type(value)}, not an object", text
        )
    return SourceRow(number, value)


def _skip_line(stream: BinaryIO, limit: int) -> int:
    length = 0
    while rest := stream.readline(limit):
        length += len(rest)
        if rest.endswith(b"\n"):
            break
    return length
