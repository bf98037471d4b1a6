"""JSON files that are one document: an array of objects, or a table by columns."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, BinaryIO

from rlt_data.sources.files.json_lines import MAX_ROW_BYTES, read_json_lines, remove_byte_order_mark
from rlt_data.sources.files.json_values import (
    DECODE_ERRORS,
    decode_json,
    decode_whole_json,
    explain_error,
    name_type,
)
from rlt_data.sources.rows import BadRow, SourceRow
from rlt_data.sources.values import escape_bytes, is_unicode

_CHUNK = 1 << 20
_GAP = re.compile(r"[\s,]*")
_STRUCTURE = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|["{}\[\]]', re.DOTALL)
_NEXT_OBJECT = re.compile(r"\n\s*(?=\{)")
_SCALAR_END = re.compile(r"[,\s\]]|$")
# Names under which files store their list of rows.
_WRAPPERS = ("data", "rows", "examples", "train", "test")


def read_json(
    open_stream: Callable[[], BinaryIO], limit: int = MAX_ROW_BYTES
) -> Iterator[SourceRow | BadRow]:
    """Read a JSON file: an array of objects, objects one after the other, or one object.

    One object is a row, or a table: lists of equal length by column (pandas writes them as objects), or a
    list of objects under a name such as `data`. Only a table by columns is held in memory as a whole.
    """
    with open_stream() as stream:
        as_lines = _holds_json_lines(stream, limit)
    with open_stream() as stream:
        if as_lines:
            yield from read_json_lines(stream, limit)
            return
        reader = ValueReader(stream, limit)
        first, second = next(reader, None), next(reader, None)
        if isinstance(first, dict) and second is None and not reader.in_array:
            yield from _number_rows(iter(_unfold_document(first)))
        elif first is not None:
            yield from _number_rows(chain([first], [] if second is None else [second], reader))


class ValueReader(Iterator[Any]):
    """The elements of a top-level array, or top-level values one after the other, decoded one by one.

    A value that cannot be decoded is a `BadRow` without a number. Reading continues after its closing
    bracket, or, where brackets or quotes do not match, at the next line that opens an object.
    """

    def __init__(self, stream: BinaryIO, limit: int = MAX_ROW_BYTES) -> None:
        self._stream = stream
        self._limit = limit
        # Bytes that are not UTF-8 become surrogates, so that only their own element is lost.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text = self._decoder.decode(remove_byte_order_mark(stream.read(_CHUNK)))
        self._clean = is_unicode(self._text)
        self._position = 0
        self._ended = False
        self._skip_gap()
        self.in_array = self._text[self._position : self._position + 1] == "["
        self._position += self.in_array

    def __next__(self) -> Any:
        self._skip_gap()
        if self._position >= len(self._text) or (self.in_array and self._text[self._position] == "]"):
            raise StopIteration
        while True:
            try:
                value, end = decode_json(self._text, self._position)
            except DECODE_ERRORS as error:
                end_of_broken = self._find_end()
                if end_of_broken is None and self._read_more():
                    continue
                return self._skip_broken(error, end_of_broken)
            if end == len(self._text) and not isinstance(value, dict | list | str) and self._read_more():
                continue
            start, self._position = self._position, end
            if not self._clean and not is_unicode(raw := self._text[start:end]):
                return BadRow(
                    None, "encoding_error", "the element contains bytes that are not UTF-8", escape_bytes(raw)
                )
            return value

    def _skip_gap(self) -> None:
        while True:
            gap = _GAP.match(self._text, self._position)
            self._position = gap.end() if gap else self._position
            if self._position < len(self._text) or not self._read_more():
                return

    def _read_more(self) -> bool:
        """Append to the text and drop what was read; False at the end of the file or beyond the limit."""
        self._text = self._text[self._position :]
        self._position = 0
        if self._ended or len(self._text) > self._limit:
            return False
        # A long value is decoded again after every chunk; doubling bounds the total cost by twice its length.
        more = self._stream.read(max(_CHUNK, len(self._text)))
        self._ended = not more
        decoded = self._decoder.decode(more, final=self._ended)
        self._clean = self._clean and is_unicode(decoded)
        self._text += decoded
        return bool(more)

    def _find_end(self) -> int | None:
        """Find where the brackets of the value close, whatever is between them."""
        if self._text[self._position] not in "{[":
            end = _SCALAR_END.search(self._text, self._position + 1)
            return None if end is None or end.start() == len(self._text) else end.start()
        depth = 0
        for mark in _STRUCTURE.finditer(self._text, self._position):
            if mark[0] == '"':
                return None
            depth += (mark[0] in "{[") - (mark[0] in "}]")
            if depth == 0:
                return mark.end()
        return None

    def _skip_broken(self, error: Exception, end: int | None) -> BadRow:
        if end is None:
            after = _NEXT_OBJECT.search(self._text, self._position + 1)
            end = after.end() if after else len(self._text)
        raw = self._text[self._position : end].strip()
        reason, detail = explain_error(error, self._position)
        self._position = end
        return BadRow(None, reason, detail, escape_bytes(raw))


def _holds_json_lines(stream: BinaryIO, limit: int) -> bool:
    """Return whether the first line is an object and something follows it."""
    line = remove_byte_order_mark(stream.readline(limit))
    while line and not line.strip():
        line = stream.readline(limit)
    try:
        value = decode_whole_json(line.decode("utf-8").strip())
    except DECODE_ERRORS:
        return False
    return isinstance(value, dict) and any(map(bytes.strip, iter(lambda: stream.readline(limit), b"")))


def _unfold_document(document: dict[str, Any]) -> list[Any]:
    """Return the rows of a document that is one object."""
    values = list(document.values())
    if all(isinstance(value, list) for value in values) and len({len(value) for value in values}) == 1:
        if len(values) > 1:
            return [dict(zip(document, row, strict=True)) for row in zip(*values, strict=True)]
    elif len(values) > 1 and all(isinstance(v, dict) and v.keys() == values[0].keys() for v in values):
        if all(key.isdigit() for key in document):
            return values
        if all(key.isdigit() for key in values[0]):
            return [{name: column[index] for name, column in document.items()} for index in values[0]]
    for name in _WRAPPERS:
        rows = document.get(name)
        if isinstance(rows, list) and rows and isinstance(rows[0], dict):
            return rows
    return [document]


def _number_rows(values: Iterator[Any]) -> Iterator[SourceRow | BadRow]:
    for number, value in enumerate(values):
        if isinstance(value, BadRow):
            yield BadRow(number, value.reason, f"element {number}: {value.detail}", value.content)
        elif isinstance(value, dict):
            yield SourceRow(number, value)
        else:
            content = json.dumps(value, ensure_ascii=False)
            yield BadRow(
                number, "not_an_object", f"element {number} is {name_type(value)}, not an object", content
            )
