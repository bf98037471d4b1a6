"""A new sampling option cannot reuse traces: every field that determines rows determines their keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlt_data.formats import load_format
from rlt_data.models import ModelIdentity
from rlt_data.stages.generate import GenerateConfig
from rlt_data.stages.generate.requests import describe_generation
from rlt_data.stages.runtime.contract import LaterRowField, RowField
from rlt_data.stages.runtime.engine_models import EngineModel

TEACHER = ModelIdentity("teacher", "t", "t", "r1", Path("t"), False, None)
BASE: dict[str, Any] = {"teacher": "t"}
CHANGED: dict[str, Any] = {"temperature": 0.1, "top_p": 0.5, "top_k": 3, "max_tokens": 7, "seed": 1}
ROW_FIELDS = [
    name for name in GenerateConfig.model_fields if GenerateConfig.find_identity(name).part == "row"
]


class LaterConfig(GenerateConfig):
    """A later version with one more option of sampling."""

    min_p: LaterRowField[float] = 0.0


class ChangedConfig(GenerateConfig):
    """A version with one more option of sampling that enters every key."""

    min_p: RowField[float] = 0.0


def make_id(config: GenerateConfig, attempt: int = 0) -> str:
    return describe_generation(config, EngineModel(TEACHER, TEACHER), load_format("r1"), None, attempt).id


@pytest.mark.parametrize("name", ROW_FIELDS)
def test_every_row_field_changes_the_generation_and_the_run(name: str) -> None:
    before = GenerateConfig.model_validate(BASE)
    after = GenerateConfig.model_validate({**BASE, name: CHANGED[name]})
    assert make_id(after) != make_id(before)
    assert after.list_identity() != before.list_identity()


@pytest.mark.parametrize(
    "change", [{"where": "true"}, {"limit": 3}, {"samples": 9}, {"engine": "vllm"}, {"dtype": "bfloat16"}]
)
def test_fields_that_do_not_decide_rows_leave_the_generation_alone(change: dict[str, Any]) -> None:
    assert make_id(GenerateConfig.model_validate({**BASE, **change})) == make_id(
        GenerateConfig.model_validate(BASE)
    )


def test_an_option_that_is_added_later_changes_keys_only_where_it_is_set() -> None:
    old = GenerateConfig.model_validate(BASE)
    assert make_id(LaterConfig.model_validate(BASE)) == make_id(old)
    assert make_id(LaterConfig.model_validate({**BASE, "min_p": 0.05})) != make_id(old)


def test_over_context_enters_by_its_name_of_version_0_1() -> None:
    identity = GenerateConfig.model_validate({**BASE, "student": "s", "over_context": "drop"}).list_identity()
    assert identity["overlong"] == "drop"
    assert "over_context" not in identity


def test_no_row_field_can_be_left_out_of_the_key() -> None:
    made = {make_id(ChangedConfig.model_validate({**BASE, "min_p": min_p})) for min_p in (0.0, 0.05)}
    assert len({*made, make_id(GenerateConfig.model_validate(BASE))}) == 3
