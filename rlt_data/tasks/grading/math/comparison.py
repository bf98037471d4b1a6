"""The rules by which two mathematical answers are equal. Whatever needs algebra is left to a `Comparer`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, Protocol

from rlt_data.tasks.grading.math.normalization import (
    fold_words,
    is_words,
    normalize_answer,
    parse_number,
    split_degrees,
    split_percent,
    split_unit,
    squeeze,
)
from rlt_data.tasks.grading.math.structure import Structure, parse_structure, split_top_level

Kind = Literal["values", "equations", "sets"]

_NAME = re.compile(
    r"\\?[a-zA-Z]+'?(?:_\{?\w+\}?)?(?:\([a-zA-Z, ]*\))?|\\text\{[^{}]*\}"
    r"|[a-zA-Z](?:_\{?\w+\}?)?\^\{?-1\}?\(x\)"
)
_BASED = re.compile(r"(?P<digits>[0-9A-Fa-f]+)_\{?(?P<base>[0-9]{1,2})\}?")
_ORDER = re.compile(r"\\(?:le|ge|leq|geq|lt|gt|ne|neq|leqslant|geqslant)(?![A-Za-z])|[<>]")
# What no parser here reads; such answers are equal only as texts.
_ONLY_TEXT = re.compile(
    r"\\(?:ldots|dots|cdots|forall|exists|text|mid|to|rightarrow|implies)(?![A-Za-z])|[?@&;\"]"
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
    true, given = normalize_answer(true), normalize_answer(given)
    if not true or not given:
        return False
    if squeeze(true) == squeeze(given):
        return True
    if is_words(true) or is_words(given):
        return fold_words(true) == fold_words(given) != ""
    if len(true) > 2 and true.isalpha() and true.casefold() == given.casefold():
        return True
    return _compare(parse_structure(_choose(true, true)), parse_structure(_choose(given, true)), compare)


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


def compare_values(true: str, given: str, compare: Comparer) -> bool:
    """Return whether two values are equal; either may be an equation that names it, such as x = 5."""
    if squeeze(true) == squeeze(given):
        return True
    true_sides, given_sides = split_top_level(true, ("=",)), split_top_level(given, ("=",))
    if len(true_sides) > 1 and len(given_sides) > 1:
        if squeeze(true_sides[0]) == squeeze(given_sides[0]):
            return compare_values(true_sides[-1], given_sides[-1], compare)
        return not _ONLY_TEXT.search(true + given) and compare("equations", true, given)
    if len(true_sides) > 1:
        named = _NAME.fullmatch(true_sides[0]) is not None
        return named and compare_values(true_sides[-1], given, compare)
    if len(given_sides) > 1:
        return compare_values(true, given_sides[-1], compare)
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
    (true, _), (given, _) = split_degrees(true), split_degrees(given)
    (true, true_unit), (given, given_unit) = split_unit(true), split_unit(given)
    if true_unit and given_unit and true_unit.split("^")[0] != given_unit.split("^")[0]:
        return False
    (true, true_percent), (given, given_percent) = split_percent(true), split_percent(given)
    if _compare_plain(true, given, compare):
        return True
    # 50% is 0.5, and, where percents are asked for, 50.
    if true_percent and not given_percent:
        return _compare_plain(f"({true})/100", given, compare)
    if given_percent and not true_percent:
        return _compare_plain(true, f"({given})/100", compare)
    return False


def _compare_plain(true: str, given: str, compare: Comparer) -> bool:
    if squeeze(true) == squeeze(given):
        return True
    if not true or not given:
        return False
    one, other = parse_number(true), parse_number(given)
    if one is not None and other is not None:
        return is_near(one, other, exact="." not in true + given)
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


def is_near(true: Fraction, given: Fraction, *, exact: bool) -> bool:
    """Return whether two numbers are equal, or as near as a decimal is to the value that it approximates."""
    if exact or true == given or true.denominator == 1:
        return true == given
    return abs(true - given) <= min(ABSOLUTE, abs(true) * RELATIVE)
