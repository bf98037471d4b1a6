"""JSON Lines: every bad line is a bad row with its reason, every other line a row."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.errors import InputError
from rlt_data.sources.files.json_lines import read_json_lines
from rlt_data.sources.rows import BadRow, SourceRow

OBJECTS = st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.integers() | st.none(), max_size=4)


def read(data: bytes, **limits: int) -> list[SourceRow | BadRow]:
    return list(read_json_lines(io.BytesIO(data), **limits))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"question": "a"', "malformed_json"),
        (b'{"question": "a"} trailing', "malformed_json"),
        (b"question: a", "malformed_json"),
        (b"[" * 100_000, "malformed_json"),
        (b'["a", "b"]', "not_an_object"),
        (b"17", "not_an_object"),
        (b"null", "not_an_object"),
        (b'{"question": "\xff\xfe"}', "encoding_error"),
        (b'{"question": "a", "question": "b"}', "duplicate_key"),
        (b'{"question": {"a": 1, "a": 2}}', "duplicate_key"),
    ],
)
def test_a_bad_line_loses_only_itself(line: bytes, reason: str) -> None:
    before, bad, after = read(b'{"n": 0}\n' + line + b'\n{"n": 2}\n')
    assert (before, after) == (SourceRow(0, {"n": 0}), SourceRow(2, {"n": 2}))
    assert isinstance(bad, BadRow)
    assert (bad.number, bad.reason) == (1, reason)
    assert "line 2" in bad.detail
    assert bad.content == line.decode("utf-8", "backslashreplace")


def test_blank_lines_are_not_rows_and_row_numbers_continue() -> None:
    rows = read(b'\xef\xbb\xbf{"n": 0}\r\n\r\n  \n{"n": 1}')
    assert rows == [SourceRow(0, {"n": 0}), SourceRow(1, {"n": 1})]


def test_integers_of_any_length_are_kept() -> None:
    digits = "9" * 5000
    (row,) = read(f'{{"answer": {digits}, "small": 7}}'.encode())
    assert isinstance(row, SourceRow)
    assert row.values == {"answer": digits, "small": 7}


def test_a_line_beyond_the_limit_is_skipped_without_being_loaded() -> None:
    data = b'{"n": 0}\n' + b'{"x": "' + b"a" * 5000 + b'"}\n' + b'{"n": 2}\n'
    before, bad, after = read(data, limit=1000)
    assert isinstance(bad, BadRow)
    assert (bad.reason, bad.number) == ("over_long_row", 1)
    assert len(bad.content or "") <= 1000
    assert (before, after) == (SourceRow(0, {"n": 0}), SourceRow(2, {"n": 2}))


def test_utf_16_is_named_with_what_to_do() -> None:
    with pytest.raises(InputError, match="UTF-16") as refused:
        read('{"question": "a"}'.encode("utf-16"))
    assert "iconv" in (refused.value.remedy or "")


@given(st.lists(OBJECTS), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_what_was_written_is_read(rows: list[dict[str, Any]], end: str, escaped: bool) -> None:
    text = end.join(json.dumps(row, ensure_ascii=escaped) for row in rows)
    assert read(text.encode()) == [SourceRow(n, row) for n, row in enumerate(rows)]


@given(st.lists(st.one_of(OBJECTS.map(json.dumps).map(str.encode), st.binary(max_size=30)), max_size=12))
def test_every_line_is_a_row_or_a_bad_row(lines: list[bytes]) -> None:
    data = b"\n".join(lines)
    expected = [line for line in data.split(b"\n") if line.removeprefix(b"\xef\xbb\xbf").strip()]
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return
    rows = read(data)
    assert [row.number for row in rows] == list(range(len(expected)))
