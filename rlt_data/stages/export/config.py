"""Options of `rlt-data export`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rlt_data.bounds import Rows
from rlt_data.stages.export.forms import FORM_HELP, Form
from rlt_data.stages.runtime.contract import (
    FreeField,
    LaterRunField,
    Over,
    ResolvedField,
    RunField,
    StageConfig,
)


class ExportConfig(StageConfig):
    """Which distillation examples are exported, in which form, and where to."""

    path: ResolvedField[str] = Field(description="File to write, or directory for the form dataset.")
    form: RunField[Form] = Field("dataset", description=f"{FORM_HELP}.")
    distillation: ResolvedField[str | None] = Field(
        None, description="Run of substitute to export (id or prefix); unset: the newest finished one."
    )
    where: LaterRunField[Annotated[str | None, Over("distillation")]] = Field(
        None, description="SQL predicate over distillation: export only these."
    )
    limit: LaterRunField[Rows | None] = Field(
        None, description="Export only the first N examples, question by question."
    )
    sharegpt_roles: RunField[Literal["user-assistant", "human-gpt"]] = Field(
        "user-assistant",
        description="Names of the speakers in the form sharegpt: those of Bespoke-Stratos and TRL, or the "
        "original ones, which LLaMA-Factory expects.",
    )
    title: RunField[str | None] = Field(
        None, description="Title of the dataset card; unset: the name of the directory."
    )
    license: RunField[str | None] = Field(
        None, description="License that the dataset card states, such as apache-2.0."
    )
    overwrite: FreeField[bool] = Field(False, description="Replace an existing export at that path.")
