"""What `rlt-data substitute` is told."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from rlt_data.stages.runtime.contract import StageConfig


class SubstituteConfig(StageConfig):
    """How distillation examples are written."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset(
        {"student", "format", "ranking", "ranked_by", "context", "batch_size"}
    )

    student: str | None = Field(
        None,
        description="Model whose chat template and tokenizer are used: alias, path or hub id; unset: the "
        "student that ranked.",
    )
    format: str = Field("stratos", description="Conversation format.")
    ranking: str | None = Field(
        None, description="Run that ranked (id or prefix); unset: the newest finished."
    )
    ranked_by: str | None = Field(
        None,
        description="Student whose ranking is used, where the run ranked by several; unset: this student.",
    )
    context: int | None = Field(
        None, ge=1, description="Longest text in tokens; unset: the context of the student's configuration."
    )
    over_context: Literal["drop", "keep", "next-best"] = Field(
        "drop",
        description="Texts over the context: drop them, keep them (marked), or take the question's next-best "
        "trace that fits. What is dropped goes to rejects.",
    )
    control_tokens: Literal["reject", "keep"] = Field(
        "reject",
        description="Texts that hold a token of the student's chat template, such as <|im_end|>, which would "
        "end the turn inside the thinking.",
    )
    batch_size: int = Field(256, ge=1, description="Texts that are tokenized together.")
