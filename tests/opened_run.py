"""A run that a test writes by itself, without a registered stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlt_data.lake import Lake
from rlt_data.stages.runtime.contract import StageConfig
from rlt_data.stages.runtime.declaration import StageDeclaration
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.starting import start_run


def open_run(
    lake: Lake,
    stage: str,
    config: StageConfig,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    pins: Sequence[str] = (),
    repeats: bool = True,
    models: Sequence[Any] = (),
    identity: Mapping[str, Any] | None = None,
    scheme_version: int = 1,
) -> StageRun:
    """Start or resume a run that is not finished yet."""
    declaration = StageDeclaration(stage, "", tuple(inputs), tuple(pins), tuple(outputs), repeats)
    preparation = Preparation(lambda run: None, models, identity or {}, scheme_version=scheme_version)
    run = start_run(lake, declaration, config, preparation)
    assert isinstance(run, StageRun), f"{stage} is finished already"
    return run
