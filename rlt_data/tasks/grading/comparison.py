"""Compare two answers as mathematics. Runs in the children of `verifier.py`, where it can be killed."""

from __future__ import annotations

import math_verify


def compare(pair: tuple[str, str]) -> bool:
    """Return whether the true answer and the given one are equal."""
    # The parser handles boxed text best. The parent enforces the time limit, so there is no alarm here.
    parsed = [math_verify.parse(rf"$\boxed{{{text}}}$", parsing_timeout=None) for text in pair]
    return bool(math_verify.verify(parsed[0], parsed[1], timeout_seconds=None))
