"""Generates problems of reasoning-gym in a process of its own, started by `reasoning_gym.py` beside it.

Some generators draw from the global random state or iterate over sets of texts. The parent fixes the hash
seed of this process, and the global random state is seeded before each problem, so that a problem depends
on name, options, seed and index alone. Reads one line of JSON, and writes one line per problem.
"""

from __future__ import annotations

import enum
import json
import os
import random
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from rlt_data.sources.procedural.reasoning_gym_options import parse_options

# What generators raise when they cannot make a problem.
_FAILURES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def make_problems(request: Mapping[str, Any], output: TextIO) -> None:
    """Generate the problems of one request and write each as `{"row": ...}` or `{"failed": error}`."""
    import numpy
    from reasoning_gym.factory import DATASETS

    size, seed = request["size"], request["seed"]
    config = parse_options(request["name"], request["options"], size=size, seed=seed)
    dataset = DATASETS[request["name"]][0](config=config)
    for index in range(size):
        random.seed(seed + index)
        numpy.random.seed((seed + index) % 2**32)
        try:
            message = {"row": simplify_value(dataset[index])}
        except _FAILURES as error:
            message = {"failed": f"{type(error).__name__}: {error}"}
        output.write(json.dumps(message) + "\n")
        output.flush()


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
    make_problems(json.loads(sys.stdin.readline()), pipe)
