"""JSON documents: arrays read element by element, tables by column, damage kept to its element."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.sources.files.json_documents import ValueReader, read_json
from rlt_data.sources.rows import BadRow, SourceRow

ROWS = [{"question": "1 + 1?", "answer": 2}, {"question": "é?", "answer": None}]
OBJECTS = st.dictionaries(
    st.text(max_size=5),
    st.text(max_size=12) | st.integers() | st.lists(st.text(max_size=5), max_size=2),
    max_size=3,
)


def read(data: bytes | str) -> list[SourceRow | BadRow]:
    raw = data if isinstance(data, bytes) else data.encode()
    return list(read_json(lambda: io.BytesIO(raw)))


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\ufeff" + json.dumps(ROWS, ensure_ascii=False),
        "\n".join(map(json.dumps, ROWS)),
        "\n\n".join(json.dumps(row, indent=4) for row in ROWS),
        json.dumps({"question": ["1 + 1?", "é?"], "answer": [2, None]}),
        json.dumps({"question": {"0": "1 + 1?", "1": "é?"}, "answer": {"0": 2, "1": None}}),
        json.dumps({"0": ROWS[0], "1": ROWS[1]}),
        json.dumps({"version": 3, "data": ROWS}),
    ],
    ids=["array", "indented", "mark", "lines", "objects", "columns", "pandas", "index", "wrapped"],
)
def test_every_usual_form_gives_the_same_rows(text: str) -> None:
    assert read(text) == [SourceRow(number, row) for number, row in enumerate(ROWS)]


def test_one_object_is_one_row() -> None:
    assert read(json.dumps(ROWS[0], indent=1)) == [SourceRow(0, ROWS[0])]
    conversation = {"conversations": [{"from": "user", "value": "a"}]}
    assert read(json.dumps(conversation)) == [SourceRow(0, conversation)]


@pytest.mark.parametrize("text", ["", "  \n", "[]", "[ ]"])
def test_nothing_is_not_a_row(text: str) -> None:
    assert read(text) == []


@pytest.mark.parametrize(
    ("element", "reason"),
    [
        ('{"question": oops}', "malformed_json"),
        ('{"question": "a", "question": "b"}', "duplicate_key"),
        ('{"question": ["a", {"b": }]}', "malformed_json"),
        ("17", "not_an_object"),
        ('["a"]', "not_an_object"),
        ("oops", "malformed_json"),
        (b'{"question": "\xff"}', "encoding_error"),
    ],
)
def test_a_broken_element_loses_only_itself(element: str | bytes, reason: str) -> None:
    raw = element if isinstance(element, bytes) else element.encode()
    before, bad, after = read(b'[{"n": 0}, ' + raw + b', {"n": 2}]')
    assert (before, after) == (SourceRow(0, {"n": 0}), SourceRow(2, {"n": 2}))
    assert isinstance(bad, BadRow)
    assert (bad.number, bad.reason) == (1, reason)
    assert bad.content == raw.decode("utf-8", "backslashreplace")


def test_after_a_quote_that_never_closes_reading_continues_at_the_next_line() -> None:
    text = '[\n{"n": 0},\n{"question": "no end},\n{"n": 2},\n{"n": 3}\n]'
    rows = read(text)
    assert [row.number for row in rows] == [0, 1, 2, 3]
    assert [type(row) for row in rows] == [SourceRow, BadRow, SourceRow, SourceRow]


def test_a_file_that_breaks_off_keeps_what_was_whole() -> None:
    text = json.dumps([{"n": 0}, {"n": 1}, {"question": "long" * 20}])[:-30]
    first, second, bad = read(text)
    assert (first, second) == (SourceRow(0, {"n": 0}), SourceRow(1, {"n": 1}))
    assert isinstance(bad, BadRow)
    assert bad.reason == "malformed_json"


def test_an_array_larger_than_the_buffer_is_read_in_pieces(tmp_path: Path) -> None:
    rows = [{"n": n, "text": f"é{n} " * 500} for n in range(3000)]
    path = tmp_path / "large.json"
    path.write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    with path.open("rb") as stream:
        reader = ValueReader(stream)
        held = 0
        for number, value in enumerate(reader):
            assert value == rows[number]
            held = max(held, len(reader._text))
    assert number == 2999
    assert held < path.stat().st_size / 2


@given(st.lists(OBJECTS, min_size=2), st.sampled_from([None, 1]), st.booleans())
def test_arrays_are_read_as_they_were_written(
    rows: list[dict[str, Any]], indent: int | None, escaped: bool
) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=escaped)
    assert read(text) == [SourceRow(number, row) for number, row in enumerate(rows)]


@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\\ \n1a', max_size=60).map(str.encode))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return
    rows = read(data)
    assert [row.number for row in rows] == list(range(len(rows)))
