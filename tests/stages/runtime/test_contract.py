"""Configurations: each field declares how it enters identity, and fields added later change nothing."""

from __future__ import annotations

import pytest

from rlt_data.stages.registry import STAGES
from rlt_data.stages.runtime.contract import (
    FreeField,
    LaterRowField,
    LaterRunField,
    ResolvedField,
    RowField,
    RunField,
    StageConfig,
)
from rlt_data.stages.runtime.stage import load_stage


class SampleConfig(StageConfig):
    temperature: RowField[float] = 0.7
    where: RunField[str | None] = None
    teacher: ResolvedField[str] = "a"
    device: FreeField[str] = "cpu"


class LaterConfig(SampleConfig):
    """The same stage in a later version, with two more fields."""

    limit: LaterRunField[int | None] = None
    min_p: LaterRowField[float] = 0.0


def test_a_field_that_does_not_declare_how_it_enters_identity_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Silent\.colour must declare how it enters identity"):
        type("Silent", (StageConfig,), {"__annotations__": {"colour": str}, "colour": "red"})


def test_rows_are_identified_by_row_fields_and_runs_by_row_and_run_fields() -> None:
    config = SampleConfig(where="x > 1")
    assert config.list_row_identity() == {"temperature": 0.7}
    assert config.list_identity() == {"temperature": 0.7, "where": "x > 1"}


def test_later_fields_enter_only_where_they_differ_from_their_defaults() -> None:
    old, new = SampleConfig(), LaterConfig()
    assert (old.list_identity(), old.list_row_identity()) == (new.list_identity(), new.list_row_identity())
    assert LaterConfig(limit=3).list_identity() == {**old.list_identity(), "limit": 3}
    assert LaterConfig(limit=3).list_row_identity() == old.list_row_identity()
    assert LaterConfig(min_p=0.1).list_row_identity() == {"temperature": 0.7, "min_p": 0.1}


@pytest.mark.parametrize("declaration", STAGES, ids=lambda declaration: declaration.name)
def test_every_field_of_every_stage_declares_how_it_enters_identity(declaration) -> None:
    config = load_stage(declaration).config
    parts = {name: config.find_identity(name).part for name in config.model_fields}
    assert set(parts.values()) <= {"row", "run", "resolved", "free"}
    assert all(name.startswith("where") <= (parts[name] == "run") for name in parts)
