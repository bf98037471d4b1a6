"""The declaration of a stage: everything about it that can be said without importing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class MadeBy:
    """Where a stage finds the set that it works on: the run of `stage` that the field `field` names."""

    stage: str
    field: str


@dataclass(frozen=True)
class StageDeclaration:
    """One stage. Command, recipe section, pages, kill tests and the stage graph are made from it.

    `reads` are pinned when the run starts, and their content enters the fingerprint. `pins` are pinned only:
    their content is identified otherwise, or the stage writes them too. `writes` are the tables that it
    appends to; every stage may also append to `rejects`.
    `repeats`: a resumed run goes through all its inputs again, and rows that are there already are dropped;
    otherwise it takes what is left, and its counts add up over sessions.
    `arguments` are the configuration's fields given by position on the command line, `flags` the options
    whose name is not the field's, and `made_by` is the stage whose newest set it works on.
    """

    name: str
    help: str
    reads: tuple[str, ...] = ()
    pins: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    repeats: bool = True
    arguments: tuple[str, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)
    made_by: MadeBy | None = None
    package: str = "rlt_data.stages"

    @property
    def section(self) -> str:
        """The name of its recipe section, of its package and of its function."""
        return self.name.replace("-", "_")

    @property
    def function(self) -> str:
        """The full name of the Python function that runs it."""
        return f"{self.package}.{self.section}.{self.section}"
