"""Which traces are scored, and against which teacher: traces in groups of one teacher and one format."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from rlt_data.errors import ModelError
from rlt_data.models import ModelIdentity, resolve_model

DEFAULT_FORMAT = "stratos"


@dataclass(frozen=True)
class ScoreGroup:
    """Traces of one format and one teacher, None where they are scored without; `predicate` finds them."""

    format: str
    teacher: ModelIdentity | None
    predicate: pl.Expr

    def filter(self, traces: pl.LazyFrame) -> pl.LazyFrame:
        """Keep the traces of this group."""
        return traces.filter(self.predicate)


def list_groups(traces: pl.LazyFrame, *, teacher: str, format: str | None) -> list[ScoreGroup]:
    """List the groups of the selected traces, in a fixed order; each group's teacher is resolved.

    Raises `ModelError` where a teacher's weights are no longer those that wrote the traces.
    """
    named = pl.lit(format) if format is not None else pl.col("format").fill_null(DEFAULT_FORMAT)
    by_teacher = teacher == "auto"
    columns = [named.alias("format")]
    if by_teacher:
        columns += [pl.col("teacher"), pl.col("teacher_model"), pl.col("teacher_revision")]
    found = traces.select(columns).unique().sort(pl.all()).collect()
    fixed = None if teacher in ("auto", "none") else resolve_model(teacher, role="teacher")
    groups: list[ScoreGroup] = []
    for row in found.iter_rows(named=True):
        predicate = named == row["format"]
        identity = fixed
        if by_teacher:
            for name in ("teacher", "teacher_model", "teacher_revision"):
                predicate = predicate & pl.col(name).eq_missing(pl.lit(row[name], dtype=pl.String))
            identity = _resolve_writer(row)
        groups.append(ScoreGroup(row["format"], identity, predicate))
    return groups


def _resolve_writer(row: dict[str, str | None]) -> ModelIdentity | None:
    model, revision = row["teacher_model"], row["teacher_revision"]
    if model is None:
        return None
    identity = resolve_model(model, role="teacher")
    if revision is not None and identity.revision != revision:
        raise ModelError(
            "the teacher's weights are not those that wrote its traces "
            f"(its revision is {identity.revision}, that in the traces {revision})",
            where=model,
            remedy="restore the old weights, or choose the model to score with: --teacher MODEL",
        )
    return ModelIdentity(
        role="teacher",
        name=row["teacher"] or model,
        model=identity.model,
        revision=identity.revision,
        directory=identity.directory,
        trust_remote_code=identity.trust_remote_code,
        base=identity.base,
    )
