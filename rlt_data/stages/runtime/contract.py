"""What a stage is told and what it tells: its configuration's base class and its summary."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field


class StageConfig(BaseModel):
    """Base of every stage's configuration: frozen, unknown keys refused.

    `NOT_IDENTITY` names the fields that stay out of the fingerprint because they do not change the result.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset()

    def list_identity(self) -> dict[str, Any]:
        """Return the part of the configuration that decides the result, as JSON values."""
        return self.model_dump(mode="json", exclude=set(self.NOT_IDENTITY))

    def list_predicates(self) -> list[str]:
        """Return the SQL predicates of this configuration: the values of its fields named `where...`."""
        return [str(value) for name, value in self if name.startswith("where") and value is not None]


class StageSummary(BaseModel):
    """What one run did, over all of its interruptions.

    `rows_out` counts rows of the output tables without `rejects`; `tables` has the rows by table.
    `truncated_share` is `truncated / rows_out`; `seconds` is time at work, all legs together.
    """

    stage: str
    run_id: str
    status: str = "running"
    rows_in: int = 0
    rows_out: int = 0
    rejected: int = 0
    truncated: int = 0
    truncated_share: float = 0.0
    tokens: int = 0
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    tables: dict[str, int] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    extra: dict[str, Any] = Field(default_factory=dict)
