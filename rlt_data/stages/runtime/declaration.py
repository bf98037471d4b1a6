"""The declaration of a stage: all that is needed to list it without importing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class MadeBy:
    """The set that a stage reads: that of the run of `stage` which the configuration's `field` names."""

    stage: str
    field: str


@dataclass(frozen=True)
class StageDeclaration:
    """One stage. Command, recipe section, pages, kill tests and the stage graph are made from it.

    `reads` are pinned when the run starts, and their content enters the fingerprint. `pins` are pinned only:
    their content is identified otherwise, or the stage writes them too. `writes` are the tables that it
    appends to; every stage may also append to `rejects`.
    `repeats`: a resumed run processes all its inputs again, and rows that exist already are dropped;
    otherwise it processes the remaining inputs, and its counts add up over sessions.
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
