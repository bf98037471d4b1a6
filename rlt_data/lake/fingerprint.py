"""The fingerprint of a run: a hash of everything that determines its result.

Two runs with the same fingerprint have the same result. Excluded from the fingerprint, and why:
- the fields that a configuration excludes from its identity (batch sizes, memory budgets, numbers of devices,
  timeouts, parallelism): they change the speed, not the result;
- the name by which the user calls a model: the revision of its weights counts;
- versions of input tables: a compaction gives the same rows a new version, so row count and key digest count;
- tables that are only pinned (such as `questions` for deduplication): a stage may read what it writes;
- the path of the lake, package versions, time, host and user: recorded in the run, but not identity.

`SCHEME` is the version of this scheme. Each stage has a scheme version of its own, which is raised when its
code starts to give other results for the same configuration.
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
        """Its role in the stage: teacher or student."""

    @property
    def name(self) -> str:
        """The name by which the user calls it."""

    @property
    def model(self) -> str:
        """Hub id or path that the name resolved to."""

    @property
    def revision(self) -> str | None:
        """Commit of a hub model, or content hash of local weights."""

    @property
    def content_key(self) -> str:
        """The identity of the weights: the revision, or the model's name if it has none."""


def compute_fingerprint(
    stage: str,
    *,
    scheme_version: int,
    config: Mapping[str, Any],
    inputs: Iterable[TableState],
    models: Iterable[NamedModel],
    identity: Mapping[str, Any],
) -> str:
    """Hash everything that determines a run's result; all values must be representable in JSON."""
    return hash_content(
        SCHEME,
        stage,
        scheme_version,
        dict(config),
        sorted([state.table, state.rows, state.digest] for state in inputs),
        [[model.role, model.content_key] for model in models],
        dict(identity),
    )
