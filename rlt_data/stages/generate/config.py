"""Options of `rlt-data generate`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rlt_data.bounds import Count, Rows, SamplingTemperature, Seed, Share, Tokens
from rlt_data.stages.runtime.contract import FreeField, Over, ResolvedField, RowField, RunField
from rlt_data.stages.runtime.engine_config import EngineConfig


class GenerateConfig(EngineConfig):
    """What is generated. Sampling defaults are the paper's, except for the length limit."""

    teacher: ResolvedField[tuple[str, ...]] = Field(
        min_length=1, description="Teacher model: an alias, a hub id or a local path; repeatable."
    )
    samples: RunField[Count] = Field(1, description="Explanations to sample per question and teacher.")
    format: ResolvedField[str] = Field(
        "stratos", description="Conversation format: stratos, r1, or one defined in rlt-data.toml."
    )
    temperature: RowField[SamplingTemperature] = Field(0.7, description="Sampling temperature; 0 is greedy.")
    top_p: RowField[float] = Field(1.0, gt=0, le=1, description="Nucleus sampling mass; 1 turns it off.")
    top_k: RowField[int] = Field(
        0, ge=0, le=10**9, description="Sample from the k likeliest tokens; 0 turns it off."
    )
    max_tokens: RowField[Tokens] = Field(
        4096,
        description="Maximum length of an explanation in tokens; a shorter context truncates it earlier.",
    )
    seed: RowField[Seed] = Field(0, description="Seed of all samples.")
    where: RunField[Annotated[str | None, Over("questions")]] = Field(
        None, description="SQL predicate over questions: use only these."
    )
    limit: RunField[Rows | None] = Field(None, description="Use only the first N questions.")
    # Under "resample" these two enter the keys of traces too: see `describe_generation`.
    over_context: RunField[Literal["keep", "drop", "resample"]] = Field(
        "keep",
        description="Explanations whose student text is longer than the student's context: keep them, drop "
        "them (to rejects), or sample again.",
    )
    resamples: RunField[Count] = Field(4, description="How often an over-long explanation is sampled again.")
    student: ResolvedField[str | None] = Field(
        None, description="Student model whose context decides what is over-long."
    )
    student_context: ResolvedField[Tokens | None] = Field(
        None, description="Maximum student text in tokens; unset: the context of the student model."
    )
    max_truncated_share: FreeField[Share] = Field(
        0.3, description="Stop where more than this share is truncated by max_tokens."
    )
    allow_truncated: FreeField[bool] = Field(
        False, description="Never stop because of truncated explanations."
    )

    @field_validator("teacher", mode="before")
    @classmethod
    def _accept_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> GenerateConfig:
        if len(set(self.teacher)) < len(self.teacher):
            raise ValueError("the same teacher is given twice")
        if self.over_context != "keep" and self.student is None:
            raise ValueError(
                f"over_context = {self.over_context!r} needs a student, whose context is the limit"
            )
        if self.is_served and len(self.teacher) > 1 and self.read_server_options().served_model is not None:
            raise ValueError("served_model names one model, and there are several teachers")
        return self

    def list_identity(self) -> dict[str, Any]:
        """Return what enters the fingerprint; `over_context` by the name that it had in version 0.1."""
        identity = super().list_identity()
        identity["overlong"] = identity.pop("over_context")
        return identity
