"""One JSON text decoded, or the reason why not: repeated keys are refused, huge integers kept as text."""

from __future__ import annotations

import json
from typing import Any


class _RepeatedKeyError(ValueError):
    """An object names the same key twice, so what it means cannot be told."""


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        names = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(key for key in values if names.count(key) > 1))
    return values


def _read_integer(digits: str) -> int | str:
    # Python refuses to convert more than 4,300 digits; such a number stays the text that it was.
    return int(digits) if len(digits) < 4000 else digits


_DECODER = json.JSONDecoder(object_pairs_hook=_build_object)
_PATIENT_DECODER = json.JSONDecoder(object_pairs_hook=_build_object, parse_int=_read_integer)

DECODE_ERRORS = (ValueError, RecursionError)
"""What `decode_json` raises; `explain_error` names it."""


def decode_json(text: str, position: int = 0) -> tuple[Any, int]:
    """Decode the value that begins at `position`; return it and where it ends. Raises `DECODE_ERRORS`."""
    try:
        return _DECODER.raw_decode(text, position)
    except (json.JSONDecodeError, _RepeatedKeyError):
        raise
    except ValueError:
        return _PATIENT_DECODER.raw_decode(text, position)


def decode_whole_json(text: str) -> Any:
    """Decode a text that holds one value and nothing after it. Raises `DECODE_ERRORS`."""
    value, end = decode_json(text)
    if end != len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


def explain_error(error: Exception, start: int = 0) -> tuple[str, str]:
    """Return the reject reason and a sentence for an error of `decode_json`."""
    match error:
        case _RepeatedKeyError():
            return "duplicate_key", f"the key {error.args[0]!r} stands twice in one object"
        case json.JSONDecodeError():
            return "malformed_json", f"{error.msg} at character {error.pos - start}"
        case RecursionError():
            return "malformed_json", "nested too deeply"
        case _:
            return "malformed_json", str(error)


def name_type(value: Any) -> str:
    """Say what a decoded value is, for a message."""
    names = {list: "a list", str: "a text", bool: "a boolean", type(None): "null", dict: "an object"}
    return names.get(type(value), "a number")
