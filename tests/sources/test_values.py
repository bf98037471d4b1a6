"""Values as text and as JSON."""

from __future__ import annotations

import json
import math
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.sources.files.json_values import decode_whole_json
from rlt_data.sources.rows import RowError
from rlt_data.sources.values import read_flag, read_text, write_json

ANY_VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(alphabet=st.characters(codec=None))
    | st.binary()
    | st.dates()
    | st.decimals(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("  kept as it is\r\n", "  kept as it is\r\n"),
        ("", None),
        (" \n\t", None),
        (None, None),
        (math.nan, None),
        (204, "204"),
        (204.0, "204"),
        (0.5, "0.5"),
        (1e300, "1e+300"),
        (10**40, str(10**40)),
        (True, "true"),
        (Decimal("3.10"), "3.10"),
        (date(2024, 2, 1), "2024-02-01"),
        ("é".encode(), "é"),
        (["only one"], "only one"),
        ([7], "7"),
    ],
)
def test_values_become_the_text_that_a_person_would_write(value: Any, text: str | None) -> None:
    assert read_text(value, "answer") == text


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (["a", "b"], "wrong_type"),
        ([], "wrong_type"),
        ([["a"]], "wrong_type"),
        ({"text": "a"}, "wrong_type"),
        (math.inf, "wrong_type"),
        (b"\xff", "encoding_error"),
        ("half \ud800", "encoding_error"),
    ],
)
def test_what_is_not_text_is_refused_with_the_column(value: Any, reason: str) -> None:
    with pytest.raises(RowError, match="'question'") as refused:
        read_text(value, "question")
    assert refused.value.reason == reason


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        (True, True),
        (0, False),
        (1.0, True),
        ("Yes", True),
        (" no ", False),
        ("maybe", None),
        (2, None),
        (None, None),
    ],
)
def test_grades_read_as_flags(value: Any, flag: bool | None) -> None:
    assert read_flag(value) is flag


@given(ANY_VALUE)
def test_json_is_always_valid_and_storable(value: Any) -> None:
    text = write_json({"value": value})
    text.encode("utf-8")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads(text, parse_constant=refuse)


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9) | st.none() | st.booleans()))
def test_plain_values_survive_json(values: dict[str, Any]) -> None:
    assert json.loads(write_json(values)) == values


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("true", "true"),
        ("false", "false"),
        ("1.10", "1.10"),
        ("-0", "-0"),
        ("[-0]", "-0"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("1e3", "1e3"),
        ("-2.50", "-2.50"),
        ("3.00", "3.00"),
        ("204.0", "204"),
        ("[1.10]", "1.10"),
        ("12345678901234567890123456789", "12345678901234567890123456789"),
    ],
)
def test_values_of_json_keep_their_spelling(source: str, text: str) -> None:
    assert read_text(decode_whole_json(source), "answer") == text


def test_a_number_of_json_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(RowError):
        read_text(decode_whole_json("1e999"), "answer")


def test_a_spelled_number_is_a_number_everywhere_else() -> None:
    value = decode_whole_json('{"a": [1.10, 2]}')
    assert value == {"a": [1.1, 2]}
    assert write_json(value) == '{"a": [1.1, 2]}'
    assert read_flag(decode_whole_json("1.0")) is True
