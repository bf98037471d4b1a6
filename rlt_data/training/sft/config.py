"""Configuration of supervised fine-tuning: which model learns from what, and options of TRL."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from rlt_data.bounds import Count, Options, Rows, Tokens, TrainingSeed
from rlt_data.formats import Role
from rlt_data.stages.runtime.contract import (
    FreeField,
    LaterRunField,
    ResolvedField,
    RunField,
    StageConfig,
)
from rlt_data.training.common.trl_options import select_deciding

OverLongPolicy = Literal["drop", "keep", "next-best"]


class SftSection(StageConfig):
    """What the model learns from, and how. `trainer` passes options on to `trl.SFTConfig`."""

    where: RunField[str | None] = Field(
        None,
        description="SQL predicate over traces (for a teacher) or distillation (for a student): use only "
        "these. A teacher never learns from truncated traces.",
    )
    limit: RunField[Rows | None] = Field(None, description="Use only the first N examples.")
    distillation: ResolvedField[str | None] = Field(
        None,
        description="For a student: run of substitute to use (id or prefix); unset: the newest finished one.",
    )
    max_tokens: RunField[Tokens | None] = Field(
        None, description="The longest text; unset: the model's context. No text is ever truncated."
    )
    over_long: LaterRunField[OverLongPolicy] = Field(
        "drop",
        description="Texts of more than max_tokens: drop them (to rejects), keep them whole (up to the "
        "model's context), or, for a student, use the question's next-best trace that fits.",
    )
    packing: LaterRunField[bool] = Field(
        False,
        description="Pack several whole texts into each row of a batch, up to max_tokens. They do not attend "
        "to each other.",
    )
    keep_checkpoints: FreeField[Count] = Field(1, description="Checkpoints to keep.")
    trainer: RunField[Options] = Field(default_factory=dict, description="Options of trl.SFTConfig.")
    lora: RunField[Options | None] = Field(
        None,
        description="Options of peft.LoraConfig; the adapter is merged at the end. Unset: all weights are "
        "trained.",
    )


class SftConfig(SftSection):
    """A whole supervised fine-tuning."""

    role: RunField[Role] = Field(
        "teacher",
        description="teacher: learn to explain a solved problem, from traces. student: learn to think and "
        "solve, from distillation examples.",
    )
    model: RunField[str] = Field(description="The model to start from: an alias, a hub id or a local path.")
    output: FreeField[str] = Field(description="Directory of checkpoints and of the trained model.")
    format: RunField[str] = Field("stratos", description="Conversation format.")
    seed: RunField[TrainingSeed] = Field(0, description="Seed of the order of texts.")

    @model_validator(mode="after")
    def _check_distillation(self) -> SftConfig:
        if self.distillation is not None and self.role == "teacher":
            raise ValueError("a teacher learns from traces: remove sft.distillation")
        if self.over_long == "next-best" and self.role == "teacher":
            raise ValueError("a teacher's traces have no ranking: set sft.over_long to drop or keep")
        return self

    def list_identity(self) -> dict[str, Any]:
        """Return what determines the result; for a teacher, under the field names of version 0.1."""
        identity = super().list_identity()
        if self.role == "teacher":
            del identity["role"]
            identity["teacher"] = identity.pop("model")
        # Only those options of the trainer that determine what is learned.
        identity["trainer"] = select_deciding(self.trainer)
        return identity
