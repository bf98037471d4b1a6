"""Documents validated against a model: an error names key, file, line and the nearest valid key."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
import pytest

from rlt_data.errors import UsageError
from rlt_data.toml import compose_documents, parse_document, validate_data, validate_documents


class Left(pydantic.BaseModel, extra="forbid"):
    kind: Literal["left"]
    size: int = 1


class Right(pydantic.BaseModel, extra="forbid"):
    kind: Literal["right"]
    weight: float = 1.0


class Recipe(pydantic.BaseModel, extra="forbid"):
    name: str = ""
    stages: list[Annotated[Left | Right, pydantic.Field(discriminator="kind")]] = []
    one: Left | None = None


def test_documents_compose_left_to_right_and_errors_name_the_last_that_sets_the_key() -> None:
    first = parse_document('name = "a"\n[one]\nkind = "left"\nsize = 2\n', "first.toml")
    second = parse_document('\n\n[one]\nsize = "big"\n', "second.toml")
    assert compose_documents([first, second])["one"] == {"kind": "left", "size": "big"}
    with pytest.raises(UsageError) as caught:
        validate_documents(Recipe, [first, second])
    assert caught.value.where == "second.toml:4"


def test_keys_inside_unions_and_arrays_of_tables_are_located() -> None:
    text = '[[stages]]\nkind = "left"\n\n[[stages]]\nkind = "right"\nwieght = 2.0\n'
    with pytest.raises(UsageError) as caught:
        validate_documents(Recipe, [parse_document(text, "r.toml")])
    assert caught.value.where == "r.toml:6"
    assert caught.value.what == "unknown key 'stages.1.wieght'"
    assert caught.value.remedy == "did you mean 'weight'?"


def test_a_value_that_no_document_sets_is_an_error_without_a_line() -> None:
    with pytest.raises(UsageError) as caught:
        validate_data(Recipe, {"name": 3}, [])
    assert caught.value.where == "configuration"
