"""Errors of pydantic in our words, and the keys and alternatives that its models declare."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic
import pytest

from rlt_data.validation import describe_problem, expand_models, expand_union, list_keys


class Inner(pydantic.BaseModel):
    size: int = pydantic.Field(1, alias="width")

    @pydantic.field_validator("size")
    @classmethod
    def _check_size(cls, size: int) -> int:
        if size < 0:
            raise ValueError("The size is below 0")
        return size


class Other(pydantic.BaseModel):
    weight: float = 1.0


class Outer(pydantic.BaseModel):
    name: str = ""
    one: Inner | None = None
    many: list[Inner | Other] = []
    by_name: dict[str, Other] = {}


@pytest.mark.parametrize(
    ("data", "shown", "hidden"),
    [
        ({"name": 3}, "input should be a valid string, found 3", "input should be a valid string"),
        ({"one": {"width": -1}}, "the size is below 0, found -1", "the size is below 0"),
        ({"one": []}, "input should be a valid dictionary or instance of Inner", None),
    ],
)
def test_a_problem_is_described_in_lower_case_with_its_input(
    data: Any, shown: str, hidden: str | None
) -> None:
    with pytest.raises(pydantic.ValidationError) as caught:
        Outer.model_validate(data)
    (problem,) = caught.value.errors()
    assert describe_problem(problem) == shown
    assert describe_problem(problem, show_input=False) == (hidden or shown)


def test_unions_are_expanded_through_annotations() -> None:
    assert expand_union(Annotated[int | None, "note"]) == [int, type(None)]
    assert expand_union(str | Annotated[Literal["a"] | float, 1]) == [str, Literal["a"], float]
    assert expand_models(Inner | str | Other) == [Inner, Other]


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ((), ["by_name", "many", "name", "one"]),
        (("one",), ["width"]),
        (("many", 0), ["weight", "width"]),
        (("many", 0, "Other"), ["weight", "width"]),
        (("by_name", "any"), ["weight"]),
    ],
)
def test_the_keys_at_a_path_are_listed(path: tuple[str | int, ...], keys: list[str]) -> None:
    assert list_keys(Outer, path) == keys
