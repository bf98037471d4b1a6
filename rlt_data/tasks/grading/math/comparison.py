"""The rules by which two mathematical answers are equal. Whatever needs algebra is left to a `Comparer`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Literal, Protocol

from rlt_data.tasks.grading.math.normalization import (
    convert_angles,
    fold_words,
    is_decimal,
    is_words,
    normalize_answer,
    parse_number,
    read_currency,
    read_mark,
    remove_blanks,
    split_degrees,
    split_half_of_day,
    split_percent,
    split_unit,
    squeeze,
)
from rlt_data.tasks.grading.math.structure import Structure, parse_structure, split_top_level

Kind = Literal["values", "equations", "sets"]

_INDEX = r"(?:_(?:\{[^{}=]*\}|\w|\\[a-zA-Z]+))?"
_PLAIN_NAME = (
    rf"(?:\\?[a-zA-Z]+'*{_INDEX}"
    rf"|\\(?:text|mathbf|vec|overline|widehat|hat|bar|boldsymbol)\{{[^{{}}]*\}}{_INDEX})"
)
# What an answer may be called: x, x_1, AB, the area, f(2), f^{-1}(x), \angle ABC, |AB|, [ABC], \cos A.
_NAME = re.compile(
    rf"{_PLAIN_NAME}|[a-zA-Z]+(?: [a-zA-Z]+)+"
    rf"|(?:[fghpqFGHPQTEVSNAC]|\\?[a-zA-Z]{{2,}}|\\text\{{[^{{}}]*\}}){_INDEX}'*(?:\^\{{?-1\}}?)?\([^=]*\)"
    rf"|\\(?:angle|triangle|measuredangle|sin|cos|tan|cot|sec|csc|vec)\s*\\?[a-zA-Z]+{_INDEX}"
    r"|m\s*\\angle\s*[a-zA-Z]+|\|(?:[A-Z]+|[zw]|\\vec\{?[a-zA-Z]\}?)\||\[[A-Z]{3,}\]"
)
_SUM = re.compile(rf"{_PLAIN_NAME}(?:\s*[-+]\s*{_PLAIN_NAME})+")
_CHOICE = re.compile(r"\$?\s*(?:\\(?:text|textbf|mathrm)\{\s*\(?[A-Z]\)?\s*\}|\([A-Z]\))\s*\$?")
_BASED = re.compile(r"(?P<digits>[0-9A-Fa-f]+)_\{?(?P<base>[0-9]{1,2})\}?")
_ORDER = re.compile(r"\\(?:le|ge|leq|geq|lt|gt|ne|neq|leqslant|geqslant)(?![A-Za-z])|[<>]")
# What no parser here reads; such answers are equal only as texts.
_ONLY_TEXT = re.compile(
    r"\\(?:ldots|dots|cdots|forall|exists|text|mid|to|rightarrow|implies)(?![A-Za-z])|[?@&;\"]|[0-9] [0-9]"
)
ABSOLUTE, RELATIVE = Fraction(5, 10**7), Fraction(1, 10**5)
"""How far a decimal may be from the value that it approximates: in all, and as a share of that value."""


class Comparer(Protocol):
    """Compares two values, equations, or sets, as mathematics."""

    def __call__(self, kind: Kind, true: str, given: str) -> bool:
        """Return whether the two are equal."""
        ...


def compare_answers(true: str, given: str, compare: Comparer) -> bool:
    """Return whether two answers are equal. Raises `OverLimitError` where one exceeds the limits."""
    is_choice = _CHOICE.fullmatch(true.strip()) is not None
    currencies = read_currency(true), read_currency(given)
    true, given = normalize_answer(true), normalize_answer(given)
    if not true or not given:
        return False
    if currencies != (None, None):
        marks = _choose_mark(currencies[0], true), _choose_mark(currencies[1], given)
        if None not in marks and marks[0] != marks[1]:
            return False
    if is_choice and fold_words(true) == fold_words(given):
        return True
    if squeeze(true) == squeeze(given):
        return True
    if is_words(true) or is_words(given):
        return fold_words(true) == fold_words(given) != ""
    if len(true) > 2 and true.isalpha() and true.casefold() == given.casefold():
        return True
    return _compare(parse_structure(_choose(true, true)), parse_structure(_choose(given, true)), compare)


def _choose_mark(currency: str | None, text: str) -> str | None:
    mark = read_mark(text)
    return None if currency and mark and mark != currency else currency or mark


def _choose(text: str, true: str) -> str:
    """Of an exact value and its approximation choose the exact one, unless the true answer is a decimal."""
    parts = split_top_level(text, (r"\approx", r"\simeq", r"\doteq"))
    if len(parts) < 2:
        return text
    decimal = re.fullmatch(r"-?[0-9]+\.[0-9]+", true) is not None
    return parts[-1] if decimal or _NAME.fullmatch(parts[0]) else parts[0]


def _compare(true: Structure, given: Structure, compare: Comparer) -> bool:
    kinds = (true.kind, given.kind)
    if kinds == ("value", "value"):
        return compare_values(true.text, given.text, compare)
    if kinds == ("list", "list") and _is_named(true.parts) != _is_named(given.parts):
        # The values of several names have an order, since their names do.
        return _compare_ordered(true.parts, given.parts, compare)
    if kinds in (("list", "list"), ("union", "union")):
        return _compare_unordered(true.parts, given.parts, compare)
    if kinds in (("matrix", "matrix"), ("determinant", "determinant")):
        return true.columns == given.columns and _compare_ordered(true.parts, given.parts, compare)
    if kinds == ("bracketed", "bracketed"):
        return true.brackets == given.brackets and _compare_ordered(true.parts, given.parts, compare)
    if set(kinds) == {"bracketed", "list"}:
        # Brackets that were left out: 3, 4 for (3, 4). Those of a half-open or closed interval matter.
        brackets = max(true.brackets, given.brackets, key=lambda pair: pair in (("(", ")"), ("[", "]")))
        is_set = (r"\{", r"\}") in (true.brackets, given.brackets)
        return brackets == ("(", ")") and not is_set and _compare_ordered(true.parts, given.parts, compare)
    if "value" in kinds and len(true.parts) == len(given.parts) == 1:
        return False
    if "value" in kinds and {"bracketed", "union"} & set(kinds):
        # An inequality for an interval.
        value = true if true.kind == "value" else given
        return _ORDER.search(value.text) is not None and compare("sets", true.text, given.text)
    if set(kinds) == {"value", "list"}:
        # A set of one element.
        single = true if true.kind == "list" else given
        other = given if true.kind == "list" else true
        return len(single.parts) == 1 and _compare(single.parts[0], other, compare)
    if set(kinds) == {"value", "determinant"}:
        return compare("values", true.text, given.text)
    return False


def _compare_ordered(true: Sequence[Structure], given: Sequence[Structure], compare: Comparer) -> bool:
    return len(true) == len(given) and all(
        _compare(one, other, compare) for one, other in zip(true, given, strict=True)
    )


def _compare_unordered(true: Sequence[Structure], given: Sequence[Structure], compare: Comparer) -> bool:
    """Match every item with one of the other side; none may be left out or repeated."""
    if len(true) != len(given):
        return False
    left = list(given)
    for one in true:
        match = next((other for other in left if squeeze(one.text) == squeeze(other.text)), None)
        match = match or next((other for other in left if _compare(one, other, compare)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _is_named(items: Sequence[Structure]) -> bool:
    """Return whether items are values of different names, as a = 1, b = 2; x_1 and x_2 are of one name."""
    sides = [split_top_level(item.text, ("=",)) for item in items]
    if not all(len(side) > 1 and is_name(side[0]) for side in sides):
        return False
    return len({side[0].split("_")[0].strip() for side in sides}) > 1


def is_name(text: str) -> bool:
    """Return whether one side of an equation only names the other: a name, or a sum of names, as x + y.

    2x and x^2 are none: 2x = 5 gives x another value.
    """
    text = split_degrees(text)[0]
    if _SUM.fullmatch(text):
        names = re.split(r"\s*[-+]\s*", text)
        return len(set(names)) == len(names)
    return _NAME.fullmatch(text) is not None and text not in (r"\pi", r"\infty")


def _compare_chain(true: str, sides: Sequence[str], compare: Comparer) -> bool:
    """Compare a value with all sides of an equation but its names: 1 + 1 = 2 is 2, and 2x = 5 is not 5."""
    named = is_name(sides[0])
    for index, side in enumerate(sides):
        is_last = index == len(sides) - 1
        if not is_last and (is_name(side) or (named and _is_formula(side))):
            continue
        if not compare_values(true, side, compare):
            return False
    return True


def _is_formula(text: str) -> bool:
    """Return whether a text has variables, as the middle of A = \\pi r^2 = 9\\pi."""
    return re.search(r"[a-zA-Z]", re.sub(r"\\text\{[^{}]*\}|\\[a-zA-Z]+", "", text)) is not None


def compare_values(true: str, given: str, compare: Comparer) -> bool:
    """Return whether two values are equal; either may be an equation that names it, such as x = 5."""
    if squeeze(true) == squeeze(given):
        return True
    true_sides, given_sides = split_top_level(true, ("=",)), split_top_level(given, ("=",))
    if len(true_sides) > 1 and len(given_sides) > 1:
        if squeeze(true_sides[0]) == squeeze(given_sides[0]):
            return _compare_chain(true_sides[-1], given_sides[1:], compare)
        return not _ONLY_TEXT.search(true + given) and compare("equations", true, given)
    if len(true_sides) > 1:
        return is_name(true_sides[0]) and compare_values(true_sides[-1], given, compare)
    if len(given_sides) > 1:
        return _compare_chain(true, given_sides, compare)
    (true, true_half), (given, given_half) = split_half_of_day(true), split_half_of_day(given)
    if true_half and given_half and true_half != given_half:
        return False
    if ":" in true or ":" in given:
        return _compare_ratios(true, given, compare)
    return _compare_quantities(true, given, compare)


def _compare_ratios(true: str, given: str, compare: Comparer) -> bool:
    """Compare ratios and times of day part by part: 2:4 is not 1:2, as 12:00 is not 6:00."""
    trues, givens = true.split(":"), given.split(":")
    if len(trues) != len(givens):
        return False
    return all(
        bool(one.strip() and other.strip()) and compare_values(one.strip(), other.strip(), compare)
        for one, other in zip(trues, givens, strict=True)
    )


def _compare_quantities(true: str, given: str, compare: Comparer) -> bool:
    true, given = convert_angles(true), convert_angles(given)
    marks = read_mark(true), read_mark(given)
    if None not in marks and marks[0] != marks[1]:
        return False
    (true, _), (given, _) = split_degrees(true), split_degrees(given)
    (true, _), (given, _) = split_unit(true), split_unit(given)
    (true, true_percent), (given, given_percent) = split_percent(true), split_percent(given)
    if _compare_plain(true, given, compare):
        return True
    # 50% is 0.5, and, where percents are asked for, 50.
    if true_percent and not given_percent:
        return _compare_plain(_write_hundredth(true), given, compare)
    if given_percent and not true_percent:
        return _compare_plain(true, _write_hundredth(given), compare)
    return False


def _write_hundredth(text: str) -> str:
    if not is_decimal(text):
        return f"({text})/100"
    return f"{Decimal(remove_blanks(text)).scaleb(-2):f}"


def _compare_plain(true: str, given: str, compare: Comparer) -> bool:
    if squeeze(true) == squeeze(given):
        return True
    if not true or not given:
        return False
    one, other = parse_number(true), parse_number(given)
    if one is not None and other is not None:
        if is_decimal(true) == is_decimal(given):
            return one == other
        return is_near(other, one) if is_decimal(true) else is_near(one, other)
    based, given_based = _BASED.fullmatch(squeeze(true)), _BASED.fullmatch(squeeze(given))
    if based and given_based:
        return based.group("digits", "base") == given_based.group("digits", "base")
    if based:
        # The base that a question asks for is often left out.
        return based["digits"] == squeeze(given)
    if given_based:
        return given_based["base"] == "10" and given_based["digits"] == squeeze(true)
    if _ONLY_TEXT.search(true + given):
        return False
    if _ORDER.search(true) or _ORDER.search(given):
        return bool(_ORDER.search(true) and _ORDER.search(given)) and compare("sets", true, given)
    return compare("values", true, given)


def is_near(value: Fraction, decimal: Fraction) -> bool:
    """Return whether a decimal is equal to an exact value, or as near as a decimal is that approximates it.

    Nothing approximates a value that six decimals write out.
    """
    if value == decimal or 10**6 % value.denominator == 0:
        return value == decimal
    return abs(value - decimal) <= min(ABSOLUTE, abs(value) * RELATIVE)
