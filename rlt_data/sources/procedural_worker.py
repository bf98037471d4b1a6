"""Makes procedural problems in a process of its own; `rlt_data.sources.procedural` starts it.

Some generators of reasoning-gym draw from the global random state or iterate over sets of strings. Here the
hash seed is fixed by the parent, and the global state is seeded before each problem, so that a problem
depends on name, options, seed and index alone. Reads one JSON line, writes one line a message.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import os
import random
import sys
import typing
from collections.abc import Mapping
from typing import Any, TextIO

from pydantic import TypeAdapter, ValidationError

_ITEM_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


def serve(request: Mapping[str, Any], output: TextIO) -> None:
    """Answer one request: what the generator is set to, then its problems one by one."""
    import numpy
    import reasoning_gym
    from reasoning_gym.factory import DATASETS

    name = request["name"]
    if name not in DATASETS:
        _send(output, {"error": "unknown_name", "names": sorted(DATASETS)})
        return
    config_class = DATASETS[name][1]
    try:
        options = _read_options(config_class, request["options"])
        dataset = reasoning_gym.create_dataset(name, size=request["size"], seed=request["seed"], **options)
    except _OptionError as error:
        _send(output, {"error": "option", "message": str(error), "names": error.known})
        return
    except _ITEM_ERRORS as error:
        _send(output, {"error": "refused", "message": str(error) or type(error).__name__})
        return
    settings = dataclasses.asdict(dataset.config)
    _send(output, {"settings": settings, "version": reasoning_gym.__version__})
    for index in range(request["size"]):
        random.seed(request["seed"] + index)
        numpy.random.seed((request["seed"] + index) % 2**32)
        try:
            _send(output, {"row": dataset[index]})
        except _ITEM_ERRORS as error:
            _send(output, {"failed": f"{type(error).__name__}: {error}"})


class _OptionError(Exception):
    def __init__(self, message: str, known: list[str]) -> None:
        super().__init__(message)
        self.known = known


def _read_options(config_class: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Bring options to the types that the generator declares; texts are read as JSON where that fits."""
    types = {
        name: kind
        for name, kind in typing.get_type_hints(config_class).items()
        if name not in ("seed", "size")
    }
    options = {}
    for name, value in given.items():
        if name not in types:
            raise _OptionError(f"it has no option {name!r}", sorted(types))
        options[name] = _read_option(name, value, types[name], sorted(types))
    return options


def _read_option(name: str, value: Any, kind: Any, known: list[str]) -> Any:
    adapter = TypeAdapter(kind)
    candidates = [value]
    if isinstance(value, str):
        candidates += [json.loads(value)] if _is_json(value) else []
        candidates.append([piece.strip() for piece in value.split(",")])
    problem = ""
    for candidate in candidates:
        try:
            return adapter.validate_python(candidate)
        except ValidationError as error:
            problem = problem or error.errors()[0]["msg"]
    raise _OptionError(f"option {name!r} holds {value!r}: {problem}", known)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _send(output: TextIO, message: Mapping[str, Any]) -> None:
    output.write(json.dumps(_simplify(message), ensure_ascii=True) + "\n")
    output.flush()


def _simplify(value: Any) -> Any:
    """Bring generator values (enumerations, numpy scalars, sets, any keys) to what JSON holds."""
    match value:
        case enum.Enum():
            return _simplify(value.value)
        case None | bool() | str() | int() | float():
            return value
        case Mapping():
            return {str(key): _simplify(item) for key, item in value.items()}
        case set() | frozenset():
            return sorted((_simplify(item) for item in value), key=str)
        case list() | tuple():
            return [_simplify(item) for item in value]
        case _ if hasattr(value, "tolist"):
            return _simplify(value.tolist())
        case _:
            return str(value)


if __name__ == "__main__":
    # Whatever the generators print goes to stderr; the pipe carries messages alone.
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(json.loads(sys.stdin.readline()), pipe)
