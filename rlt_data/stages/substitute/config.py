"""Options of `rlt-data substitute`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rlt_data.bounds import Count, Rows, Tokens
from rlt_data.stages.runtime.contract import (
    FreeField,
    LaterRunField,
    Over,
    ResolvedField,
    RunField,
    StageConfig,
)


class SubstituteConfig(StageConfig):
    """Which ranked traces become distillation examples, and how these are written."""

    student: ResolvedField[str | None] = Field(
        None,
        description="Model whose chat template and tokenizer are used: an alias, a hub id or a path; unset: "
        "the student that the traces were ranked by.",
    )
    format: ResolvedField[str] = Field("stratos", description="Conversation format.")
    ranking: ResolvedField[str | None] = Field(
        None, description="Run of rank to use (id or prefix); unset: the newest finished one."
    )
    ranked_by: ResolvedField[str | None] = Field(
        None, description="Student whose ranking is used, where the run ranked by several; unset: `student`."
    )
    where: LaterRunField[Annotated[str | None, Over("rankings")]] = Field(
        None, description="SQL predicate over rankings: use only these."
    )
    limit: LaterRunField[Rows | None] = Field(
        None, description="Use only the first N selected traces, question by question."
    )
    student_context: ResolvedField[Tokens | None] = Field(
        None, description="Maximum text length in tokens; unset: the context of the student model."
    )
    over_context: RunField[Literal["drop", "keep", "next-best"]] = Field(
        "drop",
        description="Texts longer than the context: drop them (to rejects), keep them (marked), or use the "
        "question's next-best trace that fits.",
    )
    control_tokens: RunField[Literal["reject", "keep"]] = Field(
        "reject",
        description="What to do with texts that contain a token of the student's chat template, such as "
        "<|im_end|>, which would end the turn early.",
    )
    batch_size: FreeField[Count] = Field(256, description="Texts that are tokenized together.")
