"""Laws of the rules that need no algebra: they run in the stage's own process, which no answer may break."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.tasks.grading.math.comparison import Kind, compare_answers
from rlt_data.tasks.grading.math.limits import OverLimitError
from rlt_data.tasks.grading.math.normalization import normalize_answer, parse_number, split_unit

LATEX = r"""\frac \sqrt \text{ \left( \right) \{ \} \cup \pm \begin{pmatrix} \end{pmatrix} \\ \approx
    \infty \pi \circ \le \in \% \$ \! {,} and or x= \boxed{ ** 1,000 10 words"""
PIECES = st.sampled_from([*"0123456789abxyi+-*/^_=<>()[]{},.;:!?|&$%°±√² \n", *LATEX.split()])
TEXTS = st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=25).map("".join))
NUMBERS = st.one_of(st.integers(-(10**9), 10**9).map(Fraction), st.fractions(max_denominator=1000))


class UndecidedError(Exception):
    pass


def leave_undecided(kind: Kind, true: str, given: str) -> bool:
    raise UndecidedError


def compare(true: str, given: str) -> bool | None:
    try:
        return compare_answers(true, given, leave_undecided)
    except (UndecidedError, OverLimitError):
        return None


@given(TEXTS, TEXTS)
def test_no_texts_break_the_comparison(true: str, given: str) -> None:
    assert compare(true, given) in (True, False, None)


@given(TEXTS)
def test_an_answer_equals_itself(text: str) -> None:
    assert compare(text, text) is not False or not normalize_answer(text)


@given(TEXTS)
def test_a_normalised_answer_stays_what_it_is_worth(text: str) -> None:
    try:
        normalised = normalize_answer(text)
    except OverLimitError:
        return
    assert not normalised or compare(text, normalised) is not False


def write_number(number: Fraction, form: str) -> str:
    match form:
        case "slash":
            return f"{number.numerator}/{number.denominator}"
        case "frac":
            sign = "-" if number < 0 else ""
            return rf"{sign}\frac{{{abs(number.numerator)}}}{{{number.denominator}}}"
        case _:
            return rf"\dfrac{{{number.numerator}}}{{{number.denominator}}}"


@given(NUMBERS, NUMBERS, st.sampled_from(["slash", "frac", "dfrac"]), st.sampled_from(["slash", "frac"]))
def test_fractions_are_equal_as_numbers_are(one: Fraction, other: Fraction, first: str, second: str) -> None:
    assert compare(write_number(one, first), write_number(other, second)) is (one == other)


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_integers_are_equal_to_the_last_digit(one: int, other: int) -> None:
    for form in (
        f"{other}",
        f"{other:,}",
        f"{other:,}".replace(",", r"{,}"),
        f"{other:,}".replace(",", r",\!"),
    ):
        assert compare(str(one), form) is (one == other)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12", 12),
        ("-0.5", Fraction(-1, 2)),
        (r"-\frac{1}{2}", Fraction(-1, 2)),
        ("3/4", Fraction(3, 4)),
        (r"(2+\frac{1}{3})", Fraction(7, 3)),
        ("1/0", None),
        ("1e5", None),
        ("12a", None),
        ("٣", None),
        ("", None),
    ],
)
def test_numbers_are_read_exactly(text: str, number: Fraction | None) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        (r"5 \text{cm}", "5", "cm^1"),
        (r"5\text{cm}^2", "5", "cm^2"),
        ("5 square meters", "5", "m^2"),
        ("5 apples per day", "5", ""),
        ("5", "5", None),
        ("5x", "5x", None),
        (r"2\sqrt{3} \text{inches}", r"2\sqrt{3}", "in^1"),
    ],
)
def test_units_are_split_off(text: str, value: str, unit: str | None) -> None:
    assert split_unit(text) == (value, unit)
