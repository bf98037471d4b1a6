"""The interface of every stage: its configuration, how its fields enter identity, and its summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field

from rlt_data.bounds import STRICT

ValueT = TypeVar("ValueT")
Part = Literal["row", "run", "resolved", "free"]


@dataclass(frozen=True)
class Identity:
    """How a configuration field enters the identity of what a stage makes.

    `row`: it decides the content of each row, so it enters row keys and the run's fingerprint.
    `run`: it decides which rows are made, so it enters the fingerprint alone.
    `resolved`: it names something (a model, a format, a file) whose content the stage identifies instead.
    `free`: it does not change the result: speed, memory, where results go, when to stop.
    A `later` field was added after lakes had been written: it enters only where it differs from its default,
    so that earlier runs and rows keep their fingerprints and keys.
    """

    part: Part
    later: bool = False


@dataclass(frozen=True)
class Over:
    """The table whose rows an SQL predicate selects, where that is known from the field alone."""

    table: str


RowField = Annotated[ValueT, Identity("row")]
RunField = Annotated[ValueT, Identity("run")]
LaterRowField = Annotated[ValueT, Identity("row", later=True)]
LaterRunField = Annotated[ValueT, Identity("run", later=True)]
ResolvedField = Annotated[ValueT, Identity("resolved")]
FreeField = Annotated[ValueT, Identity("free")]


class StageConfig(BaseModel):
    """Base of every stage's configuration: frozen, unknown keys refused.

    Each field declares by its annotation how it enters identity (see `Identity`); a class with a field that
    does not is refused when it is defined. The names of these fields are hashed too: a field of released
    lakes that is renamed keeps its old name in `list_identity`.
    """

    model_config = STRICT

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        for name in cls.model_fields:
            cls.find_identity(name)

    @classmethod
    def find_identity(cls, name: str) -> Identity:
        """Return how the field `name` enters identity. Raises `TypeError` where it is not declared."""
        found = [mark for mark in cls.model_fields[name].metadata if isinstance(mark, Identity)]
        if len(found) != 1:
            raise TypeError(
                f"{cls.__name__}.{name} must declare how it enters identity: annotate it as RowField[...], "
                "RunField[...], ResolvedField[...] or FreeField[...] (see rlt_data.stages.runtime.contract)"
            )
        return found[0]

    def list_identity(self) -> dict[str, Any]:
        """Return the part of the configuration that enters the run's fingerprint, as JSON values."""
        return self._dump_fields({"row", "run"})

    def list_row_identity(self) -> dict[str, Any]:
        """Return the part of the configuration that enters the keys of rows, as JSON values."""
        return self._dump_fields({"row"})

    def list_predicates(self) -> list[str]:
        """Return the SQL predicates of this configuration: the values of its fields named `where...`."""
        return list(self.map_predicates().values())

    def map_predicates(self) -> dict[str, str]:
        """Map the names of the fields named `where...` to their predicates, where they are set."""
        return {name: str(value) for name, value in self if name.startswith("where") and value is not None}

    @classmethod
    def find_table(cls, name: str) -> str | None:
        """Find the table that the predicate in the field `name` is about; None where it depends."""
        return next((mark.table for mark in cls.model_fields[name].metadata if isinstance(mark, Over)), None)

    def _dump_fields(self, parts: set[Part]) -> dict[str, Any]:
        entering = set()
        for name, field in type(self).model_fields.items():
            identity = self.find_identity(name)
            at_default = identity.later and getattr(self, name) == field.get_default(
                call_default_factory=True, validated_data={}
            )
            if identity.part in parts and not at_default:
                entering.add(name)
        return self.model_dump(mode="json", include=entering)


class StageSummary(BaseModel):
    """What one run did, over all sessions that worked on it.

    What was counted with rows that a repair set aside does not count.
    `rows_in` counts the inputs that were processed; `rows_out` counts rows of the output tables without
    `rejects`; `tables` has the rows by table. `truncated_share` is `truncated` of the rows of the first
    output table; `seconds` is the total working time of all sessions.
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
