"""Whole numbers as they are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.tasks.integers import read_integer

READ = {
    "42": "42",
    "042": "42",
    "+42": "42",
    "-7": "-7",
    "\u22127": "-7",
    "-0": "0",
    "000": "0",
    "10,080": "10080",
    "10{,}080": "10080",
    r"10,\!080": "10080",
    r"10\,080": "10080",
    r"1\;234\;567": "1234567",
    "10\u202f080": "10080",
    "$42$": "42",
    r"\(42\)": "42",
    r"\boxed{42}": "42",
    r"\boxed{42^\circ}": "42",
    r"42^{\circ}": "42",
    "42°": "42",
    "42 degrees": "42",
    r"\text{42}": "42",
    r"\textbf{042}": "42",
    r"42\text{ cm}": "42",
    r"42\,\mathrm{cm}": "42",
    "**42**": "42",
    "42.": "42",
    "42.0": "42",
    "x = 42": "42",
    "m+n = 42": "42",
    "9" * 400: "9" * 400,
}
NOT_READ = [
    "", " ", "forty-two", "42.5", "42,5", "1,23", "12,3456", "84/2", r"\frac{84}{2}", "1e3", "42%", r"42\%",
    "4 2", "42 or 43", "41, 42", "a = 1, b = 42", "1 + 41 = 42", "42x", r"42\pi", "42i", "0x2a", "1_000",
    "٤٢", "４２", "²", "nan", "inf", "-inf", "∞", "NaN", "--42", "+-42", "42!", "\x1b[31m42\x1b[0m",
    "4\u200b2", "42\x00", "__import__('os').system('touch /tmp/pwned')", "10**10**10", "9" * 401,
    "9" * 10**6, "{" * 10**6, r"\boxed{" * 10**5,
]  # fmt: skip


@pytest.mark.parametrize("text", READ, ids=[text[:30] for text in READ])
def test_whole_numbers_are_read(text):
    assert read_integer(text) == READ[text]


@pytest.mark.parametrize("text", NOT_READ, ids=[text[:30] for text in NOT_READ])
def test_nothing_else_is_a_whole_number(text):
    assert read_integer(text) is None


@given(st.integers(), st.integers())
def test_two_numbers_are_equal_where_their_texts_are(first, second):
    assert (read_integer(str(first)) == read_integer(str(second))) == (first == second)


@given(st.integers(-(10**30), 10**30), st.integers(0, 5))
def test_thousands_separators_and_leading_zeros_change_nothing(number, zeros):
    assert read_integer(f"{number:,}") == str(number)
    assert read_integer(f"{number:,}".replace(",", "{,}")) == str(number)
    assert read_integer("-" * (number < 0) + "0" * zeros + str(abs(number))) == str(number)


@given(st.text(max_size=40))
def test_any_text_is_read_or_not(text):
    value = read_integer(text)
    assert value is None or str(int(value)) == value
