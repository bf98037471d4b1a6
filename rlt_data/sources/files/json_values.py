"""Decode JSON texts: repeated keys are an error, huge integers stay text, numbers keep their spelling."""

from __future__ import annotations

import json
from typing import Any

from rlt_data.sources.values import SpelledNumber


class _RepeatedKeyError(ValueError):
    """An object has the same key twice, so that its meaning is ambiguous."""


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(key for key in values if names.count(key) > 1))
    return values


def _read_integer(digits: str) -> int | float | str:
    if digits == "-0":
        return SpelledNumber(digits)
    # Python converts at most 4,300 digits; a longer number stays text.
    return int(digits) if len(digits) < 4000 else digits


_DECODER = json.JSONDecoder(
    object_pairs_hook=_build_object, parse_float=SpelledNumber, parse_int=_read_integer
)

DECODE_ERRORS = (ValueError, RecursionError)
"""The errors that `decode_json` raises; `explain_error` describes them."""


def decode_json(text: str, position: int = 0) -> tuple[Any, int]:
    """Decode the value that begins at `position`; return it and its end. Raises `DECODE_ERRORS`."""
    return _DECODER.raw_decode(text, position)


def decode_whole_json(text: str) -> Any:
    """Decode a text that consists of one value. Raises `DECODE_ERRORS`."""
    value, end = decode_json(text)
    if end != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


def explain_error(error: Exception, start: int = 0) -> tuple[str, str]:
    """Return the reject reason and a sentence for an error of `decode_json`."""
    match error:
        case _RepeatedKeyError():
            return "duplicate_key", f"one object has the key {error.args[0]!r} twice"
        case json.JSONDecodeError():
            return "malformed_json", f"{error.msg} at character {error.pos - start}"
        case RecursionError():
            return "malformed_json", "nested too deeply"
        case _:
            return "malformed_json", str(error)


def name_type(value: Any) -> str:
    """Name the type of a decoded value, for a message."""
    names = {list: "a list", str: "a string", bool: "a boolean", type(None): "null", dict: "an object"}
    return names.get(type(value), "a number")
