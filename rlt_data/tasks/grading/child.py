"""The child process of `pool.py`: reads one request per line as JSON and writes one reply per line.

Run as `python -m rlt_data.tasks.grading.child MODULE:FUNCTION SECONDS`.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

MEMORY_LIMIT = 4 * 2**30
"""Address space of a child in bytes, so that 10**10**10 ends in a MemoryError of the child alone."""


def main() -> None:
    """Answer requests until the input ends; SECONDS is the time limit of the parent for each of them."""
    name, seconds = sys.argv[1], float(sys.argv[2])
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    logging.disable(logging.CRITICAL)
    # What a library prints must not mix with the replies.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    function = load_function(name)
    print(json.dumps("ready"), file=replies, flush=True)
    for line in sys.stdin:
        limit_time(2 * seconds + 10)
        print(answer(function, line), file=replies, flush=True)


def answer(function: Callable[[Any], Any], line: str) -> str:
    """Return the reply to one request as JSON: `{"value": ...}`, or `{"failed": why}`."""
    try:
        return json.dumps({"value": function(json.loads(line))})
    except RecursionError:
        return json.dumps({"failed": "the expression is nested too deeply"})
    except MemoryError:
        return json.dumps({"failed": "the comparison needs too much memory"})
    except Exception as error:
        return json.dumps({"failed": f"the comparison raised {type(error).__name__}"})


def load_function(name: str) -> Callable[[Any], Any]:
    """Import the function `MODULE:FUNCTION`."""
    module, _, function = name.partition(":")
    found: Callable[[Any], Any] = getattr(importlib.import_module(module), function)
    return found


def limit_time(seconds: float) -> None:
    """Limit the remaining processor time, so that a child whose parent was killed terminates."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + seconds), hard))


if __name__ == "__main__":
    main()
