"""Messages for pydantic's validation errors, and the types and keys that its models declare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pydantic


def describe_problem(problem: Mapping[str, Any], *, show_input: bool = True) -> str:
    """Describe one item of `ValidationError.errors()` in lower case, such as `input should be ..., found 3`.

    With `show_input` a value that is a text or a number is quoted; leave it out where it may be a secret.
    """
    message = str(problem["msg"]).removeprefix("Value error, ")
    found = problem.get("input")
    shown = show_input and isinstance(found, str | int | float | bool)
    return message[:1].lower() + message[1:] + (f", found {found!r}" if shown else "")


def expand_union(annotation: Any) -> list[Any]:
    """List the alternatives of an annotation: the members of a union, without `Annotated` around them."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return expand_union(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [inner for branch in get_args(annotation) for inner in expand_union(branch)]
    return [annotation]


def expand_models(annotation: Any) -> list[type[pydantic.BaseModel]]:
    """List the pydantic models among the alternatives of an annotation."""
    branches = expand_union(annotation)
    return [
        branch for branch in branches if isinstance(branch, type) and issubclass(branch, pydantic.BaseModel)
    ]


def list_keys(model: type[pydantic.BaseModel], path: Sequence[str | int]) -> list[str]:
    """List the keys that `model` accepts at `path`, a location as in `ValidationError.errors()`."""
    types: list[Any] = [model]
    for part in path:
        # A part that names the branch of a union leads to no other type.
        types = [inner for annotation in types for inner in _step_into(annotation, part)] or types
    return sorted(
        {
            field.alias or name
            for annotation in types
            for found in expand_models(annotation)
            for name, field in found.model_fields.items()
        }
    )


def _step_into(annotation: Any, part: str | int) -> Iterator[Any]:
    for branch in expand_union(annotation):
        if isinstance(branch, type) and issubclass(branch, pydantic.BaseModel):
            for name, field in branch.model_fields.items():
                if part in (name, field.alias):
                    yield field.annotation
        elif get_args(branch) and get_origin(branch) is not None:
            yield get_args(branch)[-1] if isinstance(part, str) else get_args(branch)[0]
