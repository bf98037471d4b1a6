"""Unit tests of code questions in the layout of APPS and TACO, and the comparison of what a program gives."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_TESTS = 100
"""Tests that are run; the first ones of a longer list."""
MAX_TEXT = 4 * 2**20

_FENCE = re.compile(r" {0,3}```+ ?([\w+-]*)")
_PYTHON = frozenset({"", "python", "python3", "py"})


@dataclass(frozen=True)
class UnitTest:
    """One test: the standard input and the expected output; of a function, its arguments and its value."""

    given: str
    expected: Any


@dataclass(frozen=True)
class UnitTests:
    """The tests of a question; `function` is the name of the function that they call, if there is one."""

    tests: tuple[UnitTest, ...]
    function: str | None = None


def read_tests(metadata: Mapping[str, Any]) -> UnitTests | None:
    """Read the column `input_output`, an object or its JSON text, with `inputs`, `outputs` and `fn_name`.

    None where there is no such column, no test, or one that cannot be read.
    """
    raw = metadata.get("input_output")
    if isinstance(raw, str):
        try:
            raw = json.loads(raw) if len(raw) <= MAX_TEXT else None
        except (ValueError, RecursionError):
            raw = None
    if not isinstance(raw, Mapping):
        return None
    inputs, outputs, function = raw.get("inputs"), raw.get("outputs"), raw.get("fn_name")
    if (
        not isinstance(inputs, list)
        or not isinstance(outputs, list)
        or len(inputs) != len(outputs)
        or not inputs
    ):
        return None
    if function is not None and not (isinstance(function, str) and function.isidentifier()):
        return None
    pairs = list(zip(inputs, outputs, strict=True))[:MAX_TESTS]
    if function is not None:
        if not all(isinstance(given, list) for given, _ in pairs):
            return None
        return UnitTests(tuple(UnitTest(json.dumps(given), expected) for given, expected in pairs), function)
    texts = [(_join_lines(given), _join_lines(expected)) for given, expected in pairs]
    tests = tuple(
        UnitTest(given, expected) for given, expected in texts if given is not None and expected is not None
    )
    return UnitTests(tests) if len(tests) == len(texts) else None


def find_program(text: str) -> str | None:
    """Return the last fenced block of Python, else the last fenced block without a language; or None."""
    named: str | None = None
    plain: str | None = None
    block: list[str] | None = None
    language = ""
    for line in text.splitlines():
        fence = _FENCE.match(line)
        if fence is None:
            if block is not None:
                block.append(line)
        elif block is None:
            block, language = [], fence[1].lower()
        elif not fence[1]:
            code = "\n".join(block) + "\n"
            if code.strip() and language in _PYTHON:
                named, plain = (code, plain) if language else (named, code)
            block = None
        else:  # A fence with a language opens a block, also where the one before was not closed.
            block, language = [], fence[1].lower()
    return named or plain


def agree(test: UnitTest, output: str) -> bool:
    """Return whether a program's standard output is the expected one, up to spaces and blank lines."""
    return output.split() == str(test.expected).split()


def agree_on_value(test: UnitTest, value: Any) -> bool:
    """Return whether a function's value is the expected one; APPS wraps it into a list of one."""
    expected = test.expected
    if _equal(value, expected):
        return True
    return isinstance(expected, list) and len(expected) == 1 and _equal(value, expected[0])


def _equal(first: Any, second: Any) -> bool:
    # True is no 1 and 1 is no True, but 1 and 1.0 are equal numbers.
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(_equal, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_equal(first[key], second[key]) for key in first)
    return bool(first == second)


def _join_lines(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(line, str | int | float) for line in value):
        return "\n".join(map(str, value))
    return None
