"""The fingerprint of a stage: what decides its result. The same fingerprint is the same result.

Left out of identity, and why:
- what a configuration names in `NOT_IDENTITY` (batch sizes, memory budgets, devices' counts, timeouts,
  parallelism): they change how fast a result comes, not what it is;
- the name by which the user called a model: its weights' revision decides;
- versions of input tables: a compaction makes a new version of the same rows, so rows and key digest count;
- tables that are only pinned (such as `questions` for de-duplication): a stage may read what it writes;
- paths of the lake, package versions, time, host and user: recorded in the run, not part of it.

`SCHEME` is the version of this recipe; a stage has a scheme version of its own, raised when its code starts
to give other results for the same configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from rlt_data.hashing import hash_content
from rlt_data.lake.tables.table import TableState

SCHEME = 1


class NamedModel(Protocol):
    """A model that a stage uses; `rlt_data.models.ModelIdentity` is one."""

    @property
    def role(self) -> str:
        """What it does in the stage: teacher or student."""

    @property
    def name(self) -> str:
        """How the user called it."""

    @property
    def model(self) -> str:
        """Hub id or path that the name resolved to."""

    @property
    def revision(self) -> str | None:
        """Commit of a hub model, or content hash of local weights."""

    @property
    def content_key(self) -> str:
        """What identifies the weights: the revision, or the model's name where there is none."""


def compute_fingerprint(
    stage: str,
    *,
    scheme_version: int,
    config: Mapping[str, Any],
    inputs: Iterable[TableState],
    models: Iterable[NamedModel],
    identity: Mapping[str, Any],
) -> str:
    """Hash everything that decides a stage's result; all values must be representable in JSON."""
    return hash_content(
        SCHEME,
        stage,
        scheme_version,
        dict(config),
        sorted([state.table, state.rows, state.digest] for state in inputs),
        [[model.role, model.content_key] for model in models],
        dict(identity),
    )
