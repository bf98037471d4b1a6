"""The child process of `rlt_data.tasks.verify`: JSON pairs in, line by line; true, false or failed out."""

from __future__ import annotations

import json
import logging
import resource
import sys
from contextlib import suppress
from typing import Any

MEMORY_LIMIT = 4 * 2**30
"""Address space of a child, bytes: 10**10**10 ends in a MemoryError, not in a stopped machine."""


def main() -> None:
    """Answer until the input ends; the argument is the parent's time limit for a pair, seconds."""
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
    """Compare two answers, each read as LaTeX and as a plain expression."""
    # Boxed text is what the parser reads most readily; the time limit is the parent's, not an alarm.
    parsed = [math_verify.parse(rf"$\boxed{{{text}}}$", parsing_timeout=None) for text in (true, answer)]
    return bool(math_verify.verify(parsed[0], parsed[1], timeout_seconds=None))


def limit_time(seconds: float) -> None:
    """Allow this much more processor time, so that a child whose parent was killed ends by itself."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + seconds), hard))


if __name__ == "__main__":
    main()
