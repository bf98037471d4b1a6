"""Options of `rlt-data ingest`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from rlt_data.bounds import Characters, Options, Rows
from rlt_data.sources.layouts import LAYOUTS
from rlt_data.stages.runtime.contract import ResolvedField, RunField, StageConfig


class IngestConfig(StageConfig):
    """What is read and how. The content of the source determines the result, not its location."""

    source: ResolvedField[str] = Field(
        description="File, directory, hub id, reasoning-gym:NAME, or arithmetic:chain_sum."
    )
    layout: ResolvedField[str | None] = Field(
        None,
        description="Layout of the rows; unset: recognized by the columns. "
        "One of: " + ", ".join(layout.name for layout in LAYOUTS) + ".",
    )
    map: RunField[Mapping[str, str]] = Field(
        default_factory=dict,
        description="Columns that have other names, such as question=prompt,solution=response.",
    )
    subset: ResolvedField[str | None] = Field(None, description="Subset (configuration) of a hub dataset.")
    split: ResolvedField[str | None] = Field(
        None, description="Split of a hub dataset or of a directory; unset: all."
    )
    revision: ResolvedField[str | None] = Field(None, description="Branch, tag or commit of a hub dataset.")
    limit: RunField[Rows | None] = Field(None, description="Read only the first N rows.")
    size: ResolvedField[Rows | None] = Field(
        None, description="Number of problems to generate (default: 1,000)."
    )
    seed: ResolvedField[int] = Field(0, ge=0, le=2**63 - 1, description="Seed of generated problems.")
    options: ResolvedField[Options] = Field(
        default_factory=dict, description="Options of the problem generator, such as min_numbers=3."
    )
    teacher: RunField[str | None] = Field(
        None, description="Model that wrote the traces, where the source does not name it."
    )
    format: ResolvedField[str] = Field(
        "stratos", description="Conversation format whose tags mark thinking and solution."
    )
    untagged: RunField[Literal["unknown", "think"]] = Field(
        "unknown",
        description="How to store a completion without tags: with its thinking unknown (null), or the whole "
        "of it as thinking.",
    )
    solution_template: RunField[str] = Field(
        r"The answer is \boxed{{answer}}.",
        description="Solution of a problem that has only a final answer; {answer} is replaced.",
    )
    max_question_characters: RunField[Characters] = Field(
        50_000, description="Reject questions longer than this."
    )
    max_solution_characters: RunField[Characters] = Field(
        100_000, description="Reject solutions longer than this."
    )
    max_trace_characters: RunField[Characters] = Field(
        1_000_000, description="Reject traces longer than this."
    )

    @field_validator("solution_template")
    @classmethod
    def _check_template(cls, template: str) -> str:
        if "{answer}" not in template:
            raise ValueError("the template must contain {answer}")
        return template
