"""Arithmetic over whole numbers, `+ - * / ( )` alone, computed exactly: a parser that evaluates no code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_CHARACTERS = 1_000
MAX_NUMBERS = 64
MAX_DIGITS = 18
MAX_DEPTH = 32

# The signs of typeset text and of LaTeX. None of the left sides is part of another.
_SIGNS = {
    **dict.fromkeys("×·⋅∙∗•", "*"),
    **dict.fromkeys("−–‒﹣－", "-"),
    **dict.fromkeys("÷∕⁄", "/"),
    "＋": "+",
    **dict.fromkeys("[（［", "("),
    **dict.fromkeys("]）］", ")"),
}
_COMMANDS = {
    "times": "*",
    "cdot": "*",
    "ast": "*",
    "div": "/",
    "left": "",
    "right": "",
    "!": "",
    ",": "",
    ";": "",
}
_COMMAND = re.compile(r"\\([A-Za-z]+|[!,;])[ ]?")
_FRACTION = re.compile(r"\\[dt]?frac\s{0,3}\{")
_TOKEN = re.compile(r"\s*(?:([0-9]+)|([-+*/()]))", re.ASCII)
_TRANSLATION = str.maketrans(_SIGNS)


class ExpressionError(ValueError):
    """A text that is not such an expression, or not a finite one; the message says why."""


@dataclass(frozen=True)
class Expression:
    """The exact value of an expression, and the numbers that it is made of, in order."""

    value: Fraction
    numbers: tuple[int, ...]


def read_expression(text: str) -> Expression:
    """Compute an expression of whole numbers, `+ - * / ( )`, their typeset signs, and LaTeX's fractions.

    Decimals, powers, names, products without a sign and digits other than 0 to 9 are refused, and so are
    texts longer, deeper or with longer numbers than any honest answer. Raises `ExpressionError`.
    """
    if len(text) > MAX_CHARACTERS:
        raise ExpressionError(f"the expression has {len(text):,} characters, more than {MAX_CHARACTERS:,}")
    return _Parser(_list_tokens(_replace_commands(text).translate(_TRANSLATION))).read()


def _replace_commands(text: str) -> str:
    """Replace LaTeX by plain signs; a `\\frac{a}{b}` becomes `((a)/(b))`."""
    for _ in range(MAX_NUMBERS):
        found = _FRACTION.search(text)
        if found is None:
            break
        over = _find_close(text, found.end())
        below = over + 1 + len(text[over + 1 :]) - len(text[over + 1 :].lstrip())
        if text[below : below + 1] != "{":
            raise ExpressionError(r"a \frac has no denominator in braces")
        end = _find_close(text, below + 1)
        top, bottom = text[found.end() : over], text[below + 1 : end]
        text = f"{text[: found.start()]}(({top})/({bottom})){text[end + 1 :]}"

    def replace(match: re.Match[str]) -> str:
        if match[1] not in _COMMANDS:
            raise ExpressionError(f"\\{match[1][:20]} is not arithmetic")
        return _COMMANDS[match[1]]

    return _COMMAND.sub(replace, text)


def _find_close(text: str, start: int) -> int:
    """Return the position of the brace that closes the one before `start`."""
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if not depth:
            return position
    raise ExpressionError("a brace is not closed")


def _list_tokens(text: str) -> list[str]:
    tokens, position, end = [], 0, len(text.rstrip())
    while position < end:
        found = _TOKEN.match(text, position)
        if found is None:
            raise ExpressionError(f"{text[position:].strip()[:1]!r} is not arithmetic")
        if found[1] is not None and len(found[1]) > MAX_DIGITS:
            raise ExpressionError(f"a number has {len(found[1])} digits, more than {MAX_DIGITS}")
        tokens.append(found[1] or found[2])
        position = found.end()
    return tokens


class _Parser:
    """Recursive descent: sums of products of numbers, brackets and signs."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0
        self._numbers: list[int] = []

    def read(self) -> Expression:
        """Read all tokens."""
        value = self._read_sum()
        if self._peek():
            raise ExpressionError(f"{self._peek()!r} follows a complete expression")
        return Expression(value, tuple(self._numbers))

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        self._next += 1
        return token

    def _read_sum(self) -> Fraction:
        value = self._read_product()
        while self._peek() in ("+", "-"):
            value = value + self._read_product() if self._take() == "+" else value - self._read_product()
        return value

    def _read_product(self) -> Fraction:
        value = self._read_factor()
        while self._peek() in ("*", "/"):
            if self._take() == "*":
                value *= self._read_factor()
                continue
            divisor = self._read_factor()
            if not divisor:
                raise ExpressionError("it divides by zero")
            value /= divisor
        return value

    def _read_factor(self) -> Fraction:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ExpressionError(f"it is nested deeper than {MAX_DEPTH}")
        try:
            match self._take():
                case "-":
                    return -self._read_factor()
                case "+":
                    return self._read_factor()
                case "(":
                    value = self._read_sum()
                    if self._take() != ")":
                        raise ExpressionError("a bracket is not closed")
                    return value
                case "":
                    raise ExpressionError("it ends too early")
                case token if token.isdecimal():
                    if len(self._numbers) >= MAX_NUMBERS:
                        raise ExpressionError(f"it has more than {MAX_NUMBERS} numbers")
                    self._numbers.append(int(token))
                    return Fraction(int(token))
                case token:
                    raise ExpressionError(f"{token!r} stands where a number is expected")
        finally:
            self._depth -= 1
