"""Options of `rlt-data evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from rlt_data.bounds import Count, Processes, Rows, SamplingTemperature, Seconds, Seed, Tokens
from rlt_data.stages.runtime.contract import FreeField, Over, ResolvedField, RowField, RunField
from rlt_data.stages.runtime.engine_config import EngineConfig

_SOURCES = ("data", "where", "completions", "where_traces")


class EvaluateConfig(EngineConfig):
    """Which models answer which questions, and how. What is not set is the task's own."""

    model: ResolvedField[tuple[str, ...]] = Field(
        min_length=1,
        description="Model: an alias, a hub id or a local path; repeatable. Of ready completions, any name.",
    )
    task: ResolvedField[tuple[str, ...]] = Field(
        min_length=1,
        description="Task, such as math500 or reasoning-gym:NAME (see `rlt-data tasks`); repeatable.",
    )
    data: ResolvedField[str | None] = Field(
        None, description="File, directory, hub id or generator with the questions; unset: the task's."
    )
    layout: ResolvedField[str | None] = Field(
        None, description="Layout of the data; unset: recognized by the columns."
    )
    map: ResolvedField[Mapping[str, str]] = Field(
        default_factory=dict, description="Columns of the data with other names, such as question=prompt."
    )
    where: RunField[Annotated[str | None, Over("questions")]] = Field(
        None, description="SQL predicate over questions: ask these of the lake; `true` asks all."
    )
    completions: ResolvedField[str | None] = Field(
        None, description="File of ready completions (question, answer, completion): no model is run."
    )
    where_traces: RunField[Annotated[str | None, Over("traces")]] = Field(
        None, description="SQL predicate over traces: grade these of the lake; no model is run."
    )
    limit: RunField[Rows | None] = Field(None, description="Use only the first N questions of each task.")
    samples: ResolvedField[Count | None] = Field(None, description="Completions a question.")
    format: ResolvedField[str] = Field(
        "stratos", description="Conversation format: stratos, r1, or one defined in rlt-data.toml."
    )
    temperature: ResolvedField[SamplingTemperature | None] = Field(
        None, description="Sampling temperature; 0 is greedy."
    )
    top_p: ResolvedField[float | None] = Field(
        None, gt=0, le=1, description="Nucleus sampling mass; 1 turns it off."
    )
    top_k: ResolvedField[int | None] = Field(
        None, ge=0, le=10**9, description="Sample from the k likeliest tokens; 0 turns it off."
    )
    max_tokens: ResolvedField[Tokens | None] = Field(
        None, description="Maximum length of a completion in tokens; a shorter context truncates it earlier."
    )
    seed: RowField[Seed] = Field(0, description="Seed of all samples.")
    run_code: RunField[bool] = Field(
        False,
        description="Let the grader code run the programs of completions against unit tests, in a sandbox.",
    )
    grade_seconds: FreeField[Seconds] = Field(5.0, description="Time limit of one comparison in seconds.")
    processes: FreeField[Processes | None] = Field(
        None, description="Processes that compare answers; unset: depends on the machine."
    )

    @field_validator("model", "task", mode="before")
    @classmethod
    def _accept_one(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> EvaluateConfig:
        for name in ("model", "task"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise ValueError(f"the same {name} is given twice")
        sources = [name for name in _SOURCES if getattr(self, name) is not None]
        if len(sources) > 1:
            raise ValueError(f"questions come from one source: {' or '.join(sources)}, not both")
        if self.is_answered and (len(self.model) > 1 or len(self.task) > 1):
            raise ValueError("completions belong to one model and one task")
        if self.is_served and len(self.model) > 1 and self.read_server_options().served_model is not None:
            raise ValueError("served_model names one model, and there are several models")
        return self

    @property
    def is_answered(self) -> bool:
        """Whether the completions exist already, so that no model is asked."""
        return self.completions is not None or self.where_traces is not None
