"""Values of source rows as text and as JSON: numbers, missing values, bytes, and what JSON lacks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from rlt_data.sources.rows import RowError

# Floats represent integers below this exactly: 204.0, from a column with missing values, becomes 204.
_EXACT = 2**53


class SpelledNumber(float):
    """A number of a text format with its spelling there, such as `1.10`."""

    __slots__ = ("spelling",)
    spelling: str

    def __new__(cls, spelling: str) -> SpelledNumber:
        """Parse the number."""
        number = super().__new__(cls, spelling)
        number.spelling = spelling
        return number


def read_text(value: Any, column: str) -> str | None:
    """Return one value as text, verbatim; None where it is missing or blank.

    Numbers of JSON keep their spelling, others become their shortest text; 204.0 is "204" in both, since
    columns with missing values turn 204 into it. A list of one element becomes that element. Raises
    `RowError` for other lists, objects, infinities, and text or bytes that are not valid Unicode.
    """
    match value:
        case str():
            text = value
        case None:
            return None
        case bool():
            text = str(value).lower()
        case date() | datetime() | time():
            text = str(value)
        case int():
            text = str(value)
        case float() if math.isnan(value):
            return None
        case SpelledNumber() if math.isfinite(value):
            text = value.spelling.removesuffix(".0")
        case float() if math.isfinite(value):
            text = str(int(value)) if value.is_integer() and abs(value) < _EXACT else repr(value)
        case Decimal() if value.is_finite():
            text = format(value, "f")
        case bytes():
            text = _decode(value, column)
        case [only] if not isinstance(only, list | dict):
            return read_text(only, column)
        case _:
            raise RowError("wrong_type", f"column {column!r} contains {_describe(value)}; expected text")
    if not is_unicode(text):
        raise RowError("encoding_error", f"column {column!r} contains an unpaired surrogate")
    return text if text.strip() else None


def read_flag(value: Any) -> bool | None:
    """Return a published grade as a boolean: from booleans, 0 and 1, and the usual words; else None."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    words = {"true": True, "yes": True, "correct": True, "1": True}
    words |= {"false": False, "no": False, "incorrect": False, "wrong": False, "0": False}
    return words.get(value.strip().casefold()) if isinstance(value, str) else None


def is_unicode(text: str) -> bool:
    """Return whether `text` can be encoded as UTF-8: unpaired surrogates cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def escape_bytes(text: str) -> str:
    """Replace bytes that were decoded to surrogates (`surrogateescape`) by escapes such as \\xff."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def write_json(value: Any) -> str:
    """Return any value as valid JSON: NaN as null, infinities, dates and decimals as text, bytes decoded."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        text = json.dumps(_simplify(value), ensure_ascii=False, allow_nan=False)
    return text if is_unicode(text) else json.dumps(_simplify(value), allow_nan=False)


def _simplify(value: Any) -> Any:
    match value:
        case None | bool() | str() | int():
            return value
        case float():
            return value if math.isfinite(value) else None if math.isnan(value) else str(value)
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case Mapping():
            return {str(key): _simplify(item) for key, item in value.items()}
        case list() | tuple():
            return [_simplify(item) for item in value]
        case _:
            return str(value)


def _decode(value: bytes, column: str) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(
            "encoding_error", f"column {column!r} contains bytes that are not UTF-8: {error}"
        ) from None


def _describe(value: Any) -> str:
    match value:
        case list():
            return f"a list of {len(value)} elements"
        case dict():
            return "an object with the keys " + ", ".join(map(str, list(value)[:6]))
        case float() | Decimal():
            return f"the number {value}"
        case _:
            return f"a value of type {type(value).__name__}"
