"""Options of `rlt-data rewrite`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlt_data.bounds import Rows, SamplingTemperature, Seed, Share, Tokens
from rlt_data.stages.runtime.contract import FreeField, Over, ResolvedField, RowField, RunField
from rlt_data.stages.runtime.engine_config import EngineConfig


class RewriteConfig(EngineConfig):
    """Which explanations are rewritten, by which model, with which prompt."""

    model: ResolvedField[str] = Field(description="Model that rewrites: an alias, a hub id or a local path.")
    prompt: ResolvedField[str] = Field(
        description="Built-in prompt (clean-up), or a file: the user's message as text, or a TOML file with "
        "`user`, `system`, `open` and `close`. It contains {think} or {completion}, and may contain "
        "{question} and {solution}."
    )
    format: ResolvedField[str] = Field(
        "r1", description="Conversation format of the model, whose own thinking is removed by its tags."
    )
    temperature: RowField[SamplingTemperature] = Field(0.0, description="Sampling temperature; 0 is greedy.")
    top_p: RowField[float] = Field(1.0, gt=0, le=1, description="Nucleus sampling mass; 1 turns it off.")
    top_k: RowField[int] = Field(
        0, ge=0, le=10**9, description="Sample from the k likeliest tokens; 0 turns it off."
    )
    max_tokens: RowField[Tokens] = Field(
        8192, description="Maximum length of an answer in tokens; a shorter context truncates it earlier."
    )
    seed: RowField[Seed] = Field(0, description="Seed of all samples.")
    where: RunField[Annotated[str | None, Over("traces")]] = Field(
        None, description="SQL predicate over traces: rewrite only these."
    )
    ranking: ResolvedField[str | None] = Field(
        None, description="Run of rank (id or prefix) whose selected traces are rewritten; unset: all traces."
    )
    limit: RunField[Rows | None] = Field(
        None, description="Rewrite only the first N traces, question by question."
    )
    max_truncated_share: FreeField[Share] = Field(
        0.3, description="Stop where more than this share is truncated by max_tokens."
    )
    allow_truncated: FreeField[bool] = Field(False, description="Never stop because of truncated answers.")
