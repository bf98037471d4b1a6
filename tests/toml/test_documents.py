"""TOML documents: values with the line of each key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.errors import UsageError
from rlt_data.toml import load_document, parse_document, parse_typed_value


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        load_document(tmp_path / "absent.toml")


def test_lines_are_found_past_text_that_looks_like_keys() -> None:
    text = (
        'text = """\nkey = 1\n[table]\n"""\n'
        "list = [\n  # [table]\n  '[', # x\n  2,\n]\n"
        '"quoted key" = "# no comment [" # [\n'
        "a.b.c = {x = 1}\n"
        "['t 1'.u]\nkey = '''it's\nkey = 2'''\nlast = 1\n"
    )
    document = parse_document(text, "x.toml")
    lines = text.splitlines()
    for path, start in [
        (("text",), "text"),
        (("list",), "list"),
        (("list", 1), "list"),
        (("quoted key",), '"quoted key"'),
        (("a", "b", "c"), "a.b.c"),
        (("a", "b", "c", "x"), "a.b.c"),
        (("t 1", "u"), "['t 1'.u]"),
        (("t 1", "u", "key"), "key = '''"),
        (("t 1", "u", "last"), "last"),
    ]:
        line = document.find_line(path)
        assert line is not None, path
        assert lines[line - 1].startswith(start), path
    assert document.find_line(("table", "key")) is None


KEY = st.from_regex(r"[a-z][a-z0-9_-]{0,6}", fullmatch=True)
VALUE = st.one_of(
    st.integers(-5, 5).map(str),
    st.lists(st.text("ab#=[]{} ", max_size=5), max_size=3).map(
        lambda items: "[\n" + ",\n".join(f"  '{item}'" for item in items) + "\n]"
    ),
    st.text("ab#=[]{}\n ", max_size=20).map(lambda text: f"'''\n{text}'''"),
)


@given(st.dictionaries(KEY, st.dictionaries(KEY, VALUE, max_size=4), max_size=4))
def test_every_key_is_found_where_it_was_written(tables: dict[str, dict[str, str]]) -> None:
    lines: list[str] = []
    written: dict[tuple[str, ...], int] = {}
    for table, keys in tables.items():
        lines.append(f"[{table}]")
        written[table,] = len(lines)
        for key, value in keys.items():
            written[table, key] = len(lines) + 1
            lines += f"{key} = {value}".split("\n")
    document = parse_document("\n".join(lines), "made.toml")
    assert document.data == tomllib.loads(document.text)
    assert {path: document.find_line(path) for path in written} == written


def test_a_key_is_located_by_file_and_line() -> None:
    document = parse_document("a = 1\n", "f.toml")
    assert document.locate(("a",)) == "f.toml:1"
    assert document.locate(("b",)) == "f.toml"
    assert not document.sets(("b",))
    found: dict[str, Any] = document.data
    assert re.fullmatch(r"f\.toml:\d+", document.locate(tuple(found)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("0.5", 0.5),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ("plain text", "plain text"),
        ("1,2", "1,2"),
    ],
)
def test_a_value_is_parsed_as_toml_where_it_is_valid_toml(text: str, value: Any) -> None:
    assert parse_typed_value(text) == value
