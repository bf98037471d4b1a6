"""Generates problems of reasoning-gym in a process of its own, started by `reasoning_gym.py` beside it.

Some generators draw from the global random state or iterate over sets of texts. The parent fixes the hash
seed of this process, and the global random state is seeded before each problem, so that a problem depends
on name, options, seed and index alone. Reads one line of JSON, and writes one line per problem. Ends with its
parent; memory, and the processor time of each problem, are limited.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import random
import resource
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from rlt_data.sources.procedural.reasoning_gym_options import parse_options

MEMORY_BYTES = 4 * 2**30
"""Address space for problems, beyond that of the libraries."""
_SET_PARENT_DEATH_SIGNAL = 1
# What generators raise when they cannot make a problem.
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


def make_problems(request: Mapping[str, Any], output: TextIO, *, seconds: int | None = None) -> None:
    """Generate the problems of one request and write each as `{"row": ...}` or `{"failed": error}`.

    With `seconds`, the memory of this process and the processor time of each problem are limited.
    """
    import numpy
    from reasoning_gym.factory import DATASETS

    size, seed = request["size"], request["seed"]
    config = parse_options(request["name"], request["options"], size=size, seed=seed)
    dataset = DATASETS[request["name"]][0](config=config)
    if seconds is not None:
        limit_memory()
    for index in range(size):
        if seconds is not None:
            limit_time(seconds)
        random.seed(seed + index)
        numpy.random.seed((seed + index) % 2**32)
        try:
            message = {"row": simplify_value(dataset[index])}
        except _FAILURES as error:
            message = {"failed": f"{type(error).__name__}: {error}"}
        output.write(json.dumps(message) + "\n")
        output.flush()


def end_with_parent(parent: int) -> None:
    """Let the system kill this process when its parent ends, also while a generator computes."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def limit_memory() -> None:
    """Limit the address space, so that an absurd problem ends in a `MemoryError`."""
    with suppress(ValueError, OSError):
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, hard))


def limit_time(seconds: int) -> None:
    """Limit the processor time of the next problem; the system ends this process with SIGXCPU after it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, hard))


def simplify_value(value: Any) -> Any:
    """Convert the values of a generator (enumerations, numpy scalars, sets, any keys) to JSON values."""
    match value:
        case enum.Enum():
            return simplify_value(value.value)
        case None | bool() | str() | int() | float():
            return value
        case Mapping():
            return {str(key): simplify_value(item) for key, item in value.items()}
        case set() | frozenset():
            return sorted((simplify_value(item) for item in value), key=str)
        case list() | tuple():
            return [simplify_value(item) for item in value]
        case _ if hasattr(value, "tolist"):
            return simplify_value(value.tolist())
        case _:
            return str(value)


if __name__ == "__main__":
    # Generators may print: their output goes to stderr, so that the pipe carries problems alone.
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    task = json.loads(sys.stdin.readline())
    end_with_parent(task["parent"])
    make_problems(task, pipe, seconds=task["seconds"])
