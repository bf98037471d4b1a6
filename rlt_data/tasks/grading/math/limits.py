"""Bounds of what is compared, so that no answer can exhaust time, memory or the stack of the parser."""

from __future__ import annotations

import re

TEXT_LIMIT = 4_096
"""Characters of an answer."""
NESTING_LIMIT = 64
"""Depth of brackets."""
DIGITS_LIMIT = 256
"""Digits in a row."""
ITEMS_LIMIT = 64
"""Items of a list, a set or a matrix."""
NODES_LIMIT = 512
"""Nodes of a parsed expression."""
BITS_LIMIT = 32_768
"""Bits of a number that an expression stands for."""

_DIGITS = re.compile(rf"[0-9]{{{DIGITS_LIMIT + 1}}}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class OverLimitError(Exception):
    """An answer exceeds a limit; the text is a sentence about it."""


def check_text(text: str) -> None:
    """Raise `OverLimitError` where a text is too long, nested too deeply, or has too many digits in a row."""
    if len(text) > TEXT_LIMIT:
        raise OverLimitError(f"the answer has {len(text):,} characters; at most {TEXT_LIMIT:,} are compared")
    depth = deepest = 0
    for character in text:
        if character in "{([":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "})]":
            depth = max(0, depth - 1)
    if deepest > NESTING_LIMIT:
        raise OverLimitError(f"the answer is nested {deepest} deep; at most {NESTING_LIMIT} are compared")
    if _DIGITS.search(text):
        raise OverLimitError(f"the answer has more than {DIGITS_LIMIT} digits in a row")
    if _CONTROL.search(text):
        raise OverLimitError("the answer has control characters")


def check_items(count: int) -> None:
    """Raise `OverLimitError` where a list is too long."""
    if count > ITEMS_LIMIT:
        raise OverLimitError(f"the answer has {count} items; at most {ITEMS_LIMIT} are compared")
