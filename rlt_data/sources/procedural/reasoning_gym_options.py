"""Options of reasoning-gym's generators: checked and converted to the types that a generator declares."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rlt_data.errors import UsageError, require_module
from rlt_data.suggestions import suggest_name
from rlt_data.validation import describe_problem

PREFIX = "reasoning-gym:"


def parse_options(name: str, options: Mapping[str, Any], *, size: int, seed: int) -> Any:
    """Return the generator's configuration object.

    A text is parsed as JSON where that fits the declared type, and else as a list separated by commas.
    Raises `UsageError` for an unknown generator or option, with the nearest name, and for a value that the
    generator does not accept.
    """
    require_module("reasoning_gym", "problems")
    generators = require_module("reasoning_gym.factory", "problems").DATASETS
    if name not in generators:
        raise UsageError(
            f"reasoning-gym has no generator named {name!r}", remedy=suggest_name(name, generators)
        )
    config_class = generators[name][1]
    types = typing.get_type_hints(config_class)
    del types["size"], types["seed"]
    typed = {key: _read_option(name, key, value, types) for key, value in options.items()}
    try:
        config = config_class(size=size, seed=seed, **typed)
        if hasattr(config, "validate"):
            config.validate()
    except (AssertionError, TypeError, ValueError) as error:
        raise UsageError(
            f"{PREFIX}{name} does not accept these options: {error}",
            where=json.dumps(dict(options), default=str),
        ) from error
    return config


def describe_settings(config: Any) -> dict[str, Any]:
    """Return the whole configuration of a generator as JSON values, with its defaults."""
    text = json.dumps(dataclasses.asdict(config), default=str, sort_keys=True)
    described: dict[str, Any] = json.loads(text)
    return described


def _read_option(name: str, key: str, value: Any, types: Mapping[str, Any]) -> Any:
    if key not in types:
        raise UsageError(f"{PREFIX}{name} has no option {key!r}", remedy=suggest_name(key, types))
    adapter = TypeAdapter(types[key])
    candidates = [value]
    if isinstance(value, str):
        candidates += [*_read_json(value), [piece.strip() for piece in value.split(",")]]
    problem = ""
    for candidate in candidates:
        try:
            return adapter.validate_python(candidate)
        except ValidationError as error:
            problem = problem or describe_problem(error.errors()[0], show_input=False)
    raise UsageError(f"{PREFIX}{name}: option {key!r} cannot be {value!r}: {problem}", where="--option")


def _read_json(text: str) -> list[Any]:
    try:
        return [json.loads(text)]
    except ValueError:
        return []
