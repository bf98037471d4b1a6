"""The child process of `verify.py`: reads one pair per line as JSON, and writes true, false or failed."""

from __future__ import annotations

import json
import logging
import resource
import sys
from contextlib import suppress
from typing import Any

MEMORY_LIMIT = 4 * 2**30
"""Address space of a child in bytes, so that 10**10**10 ends in a MemoryError of the child alone."""


def main() -> None:
    """Compare pairs until the input ends; the argument is the time limit of the parent per pair, seconds."""
    seconds = float(sys.argv[1])
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    logging.disable(logging.CRITICAL)
    import math_verify

    print("ready", flush=True)
    for line in sys.stdin:
        limit_time(2 * seconds + 10)
        true, answer = json.loads(line)
        try:
            print(json.dumps(compare_answers(math_verify, true, answer)), flush=True)
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            MemoryError,
            RuntimeError,
            TypeError,
            ValueError,
        ):
            print("failed", flush=True)


def compare_answers(math_verify: Any, true: str, answer: str) -> bool:
    """Return whether two answers are equal; each is parsed as LaTeX and as a plain expression."""
    # The parser handles boxed text best. The parent enforces the time limit, so there is no alarm here.
    parsed = [math_verify.parse(rf"$\boxed{{{text}}}$", parsing_timeout=None) for text in (true, answer)]
    return bool(math_verify.verify(parsed[0], parsed[1], timeout_seconds=None))


def limit_time(seconds: float) -> None:
    """Limit the remaining processor time, so that a child whose parent was killed terminates."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + seconds), hard))


if __name__ == "__main__":
    main()
