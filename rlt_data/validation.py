"""Messages for pydantic's validation errors, and the types and keys that its models declare."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pydantic
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

_OUT_OF_RANGE = frozenset(
    {"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"}
)
_NOT_A_NUMBER = {
    "int_parsing": "an integer",
    "int_parsing_size": "an integer",
    "int_from_float": "an integer",
    "int_type": "an integer",
    "float_parsing": "a number",
    "float_type": "a number",
}
_TOO_MANY_DIGITS = re.compile(r"Exceeds the limit \((\d+) digits\).* value has (\d+) digits")
_LONGEST_INPUT = 200


def describe_problem(
    problem: Mapping[str, Any], *, show_input: bool = True, model: type[pydantic.BaseModel] | None = None
) -> str:
    """Describe one item of `ValidationError.errors()` in lower case, such as `input should be ..., found 3`.

    With `show_input` a value that is a text or a number is quoted; leave it out where it may be a secret.
    With the `model` that was validated, the message for a wrong number has the whole allowed range.
    """
    message = str(problem["msg"]).removeprefix("Value error, ")
    if model is not None and problem["type"] in _OUT_OF_RANGE:
        message = f"input should be {describe_range(find_rules(model, problem['loc']))}"
    elif model is not None and problem["type"] in _NOT_A_NUMBER:
        rules = find_rules(model, problem["loc"])
        message = f"input should be {_NOT_A_NUMBER[problem['type']]} {describe_range(rules) if rules else ''}"
    found = problem.get("input")
    shown = show_input and isinstance(found, str | int | float | bool)
    return (message[:1].lower() + message[1:]).strip() + (f", found {_shorten(found)}" if shown else "")


def explain_digits(error: Exception) -> str:
    """Return the text of an error of parsing, without Python's advice for numbers of thousands of digits."""
    found = _TOO_MANY_DIGITS.search(str(error))
    if found is None:
        return str(error)
    return f"an integer has {int(found[2]):,} digits, and at most {int(found[1]):,} are read"


def describe_range(rules: Iterable[Any]) -> str:
    """Describe bounds (`Ge`, `Gt`, `Le`, `Lt`): `from 1 to 10`, `above 0 and at most 10`."""
    lowest: list[str] = []
    highest: list[str] = []
    inclusive = True
    for rule in rules:
        match rule:
            case Ge(ge):
                lowest = ["at least", _write_number(ge)]
            case Gt(gt):
                lowest, inclusive = ["above", _write_number(gt)], False
            case Le(le):
                highest = ["at most", _write_number(le)]
            case Lt(lt):
                highest, inclusive = ["below", _write_number(lt)], False
    if lowest and highest and inclusive:
        return f"from {lowest[1]} to {highest[1]}"
    return " and ".join(" ".join(part) for part in (lowest, highest) if part) or "a finite number"


def list_rules(field: FieldInfo) -> list[Any]:
    """List the bounds of a field: its own, and those in its type, also where it may be None."""
    inner = [get_args(part)[1:] for part in _list_annotated(field.annotation)]
    found: list[Any] = list(field.metadata)
    for metadata in inner:
        for rule in metadata:
            found += rule.metadata if isinstance(rule, FieldInfo) else [rule]
    return [rule for rule in found if isinstance(rule, Ge | Gt | Le | Lt)]


def find_rules(model: type[pydantic.BaseModel], path: Sequence[str | int]) -> list[Any]:
    """Find the bounds of the field of `model` at `path`, a location as in `ValidationError.errors()`."""
    types: list[Any] = [model]
    for part in path[:-1]:
        types = [inner for annotation in types for inner in _step_into(annotation, part)] or types
    fields = [found.model_fields for annotation in types for found in expand_models(annotation)]
    return [rule for named in fields if path[-1] in named for rule in list_rules(named[str(path[-1])])]


def _list_annotated(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield annotation
    elif get_origin(annotation) in (Union, UnionType):
        for branch in get_args(annotation):
            yield from _list_annotated(branch)


def _write_number(number: Any) -> str:
    return f"{int(number):,}" if float(number).is_integer() else str(number)


def _shorten(value: Any) -> str:
    # A number of more than 4,300 digits cannot be written in decimal.
    if isinstance(value, int) and abs(value) >= 10**_LONGEST_INPUT:
        return f"a number of about {int(value.bit_length() * 0.30103):,} digits"
    text = repr(value)
    return text if len(text) <= _LONGEST_INPUT else f"{text[:_LONGEST_INPUT]}... ({len(text):,} characters)"


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
