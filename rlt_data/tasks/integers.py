"""Whole numbers as they are written, compared digit by digit: 711 is not 11, and 123456 is not 123457."""

from __future__ import annotations

import re

MAX_DIGITS = 400
"""Digits of the longest number that is read; longer ones are no answer to any question."""
_MAX_TEXT = 4_000

_WRAPPED = re.compile(r"\\(?:boxed|fbox|text|textbf|mathrm|mathbf|displaystyle|bf)\s{0,2}\{([^{}]*)\}")
_DEGREES = re.compile(r"(?:\^\s?\{?\s?\\circ\s?\}?|°|\\degree|\s{1,2}degrees?)$")
_UNIT = re.compile(r"(?:\\[,;:! ])?\s?\\(?:text|mathrm|textrm|mbox)\s{0,2}\{[^{}0-9]*\}$")
_NAME = re.compile(r"[^,;0-9]{0,40}[A-Za-z][^,;]{0,40}")
_THIN = r"(?:\{,\}|\\[,!;: ]|,\\!|,|\u2009|\u202f|\u00a0|\{\\,\}|~)"
_INTEGER = re.compile(
    rf"(?P<sign>[-+\u2212]?)\s?(?P<digits>[0-9]{{1,3}}(?:{_THIN}[0-9]{{3}})+|[0-9]+)(?:\.0{{1,20}}|\.)?",
    re.ASCII,
)
_DECORATION = " \t\r\n$*_`"


def read_integer(text: str) -> str | None:
    """Read a text that is one whole number; return its digits without leading zeros, None for anything else.

    `042`, `+42`, `10{,}080`, `10,080`, `\\boxed{42}`, `x = 42`, `42^\\circ`, `42\\text{ cm}` and `42.0` are
    whole numbers. `1,23`, `42.5`, `84/2`, `1e3`, `42%` and digits other than 0 to 9 are not.
    """
    if len(text) > _MAX_TEXT:
        return None
    text = text.strip(_DECORATION)
    text = re.sub(r"^\\[(\[]\s?|\s?\\[)\]]$", "", text).strip(_DECORATION)
    for _ in range(4):
        if (inner := _WRAPPED.fullmatch(text)) is None:
            break
        text = inner[1].strip(_DECORATION)
    text = _UNIT.sub("", _DEGREES.sub("", text)).strip(_DECORATION)
    name, _, value = text.rpartition("=")
    if _NAME.fullmatch(name):  # `x = 42`, but not `1 + 41 = 42`
        text = value.strip(_DECORATION)
    found = _INTEGER.fullmatch(text)
    if found is None:
        return None
    digits = re.sub(r"[^0-9]", "", found["digits"]).lstrip("0") or "0"
    if len(digits) > MAX_DIGITS:
        return None
    return f"-{digits}" if found["sign"] in ("-", "\u2212") and digits != "0" else digits
