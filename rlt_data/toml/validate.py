"""Values from TOML documents validated against a pydantic model, with each error located by file and line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import pydantic

from rlt_data.errors import UsageError
from rlt_data.suggestions import suggest_name
from rlt_data.toml.documents import TomlDocument, compose_documents
from rlt_data.toml.lines import KeyPath
from rlt_data.validation import describe_problem, list_keys

ModelT = TypeVar("ModelT", bound=pydantic.BaseModel)

MOST_PROBLEMS = 6
"""How many wrong keys one error lists."""

MOST_CHARACTERS = 100
"""How much of a key an error shows."""


def validate_documents(model: type[ModelT], documents: Sequence[TomlDocument]) -> ModelT:
    """Compose `documents` and validate them against `model`.

    Raises `UsageError` that names, for the first wrong key, the key path, the file and line that set it
    last, and the nearest valid key; further wrong keys are listed after it.
    """
    return validate_data(model, compose_documents(documents), documents)


def validate_data(model: type[ModelT], data: Mapping[str, Any], documents: Sequence[TomlDocument]) -> ModelT:
    """Validate `data` against `model`, with errors located in `documents` (see `validate_documents`)."""
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        # A misspelled required key is reported as missing, too; the misspelling explains more.
        items = sorted(error.errors(include_url=False), key=lambda item: item["type"] != "extra_forbidden")
        problems = [_explain_problem(model, item, documents) for item in items[:MOST_PROBLEMS]]
        what, where, remedy = problems[0]
        if len(problems) > 1:
            others = [f"{what} ({where})" for what, where, _ in problems[1:]]
            left_out = len(items) - len(problems)
            what += "\n  also:  " + "\n         ".join(others)
            what += f"\n         and {left_out} more" if left_out else ""
        raise UsageError(what, where=where, remedy=remedy) from error


def _explain_problem(
    model: type[pydantic.BaseModel], problem: Mapping[str, Any], documents: Sequence[TomlDocument]
) -> tuple[str, str, str | None]:
    """Return what is wrong, where, and what to do."""
    path: KeyPath = tuple(problem["loc"])
    visible = _drop_union_tags(path, documents)
    owner = next((d for d in reversed(documents) if d.sets(visible)), documents[-1] if documents else None)
    where = owner.locate(visible) if owner else "configuration"
    dotted = ".".join(map(_shorten, visible))
    if problem["type"] == "extra_forbidden":
        return f"unknown key {dotted!r}", where, suggest_name(str(path[-1]), list_keys(model, path[:-1]))
    if problem["type"] == "missing":
        return f"the key {dotted!r} is missing", where, f"add {path[-1]} = ..."
    subject = f"{dotted!r}: " if visible else ""
    return subject + describe_problem(problem, show_input=bool(visible), model=model), where, None


def _shorten(part: str | int) -> str:
    text = str(part)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."


def _drop_union_tags(path: KeyPath, documents: Sequence[TomlDocument]) -> KeyPath:
    """Leave out the parts of a pydantic location that name the branch of a union, which no file contains."""
    visible: KeyPath = ()
    for position, part in enumerate(path):
        last = position == len(path) - 1
        if any(d.sets((*visible, part)) for d in documents) or last:
            visible = (*visible, part)
    return visible
