"""Rows that a stage takes up: everything in the lake, or what an SQL predicate keeps."""

from __future__ import annotations

import polars as pl

from rlt_data.errors import LakeError, UsageError
from rlt_data.lake import Lake
from rlt_data.lake.query import quote_name
from rlt_data.stages.run import StageRun


def select_rows(run: StageRun, table: str, where: str | None) -> pl.LazyFrame:
    """Scan the rows of an input of `run`, at its pinned version, for which `where` holds.

    `where` is an SQL predicate over the table's columns; it may ask other tables in a subquery.
    Raises `UsageError` where it is not valid SQL or names an unknown column.
    """
    return keep_rows(run.lake, run.read(table), table, where)


def keep_rows(lake: Lake, rows: pl.LazyFrame, table: str, where: str | None) -> pl.LazyFrame:
    """Keep those of `rows`, a scan of `table`, for which `where` holds; as `select_rows`, outside a run."""
    if where is None:
        return rows
    key = lake.table(table).schema.key
    query = f"SELECT {quote_name(key)} FROM {quote_name(table)} WHERE (\n{where}\n)"
    try:
        kept = lake.sql(query)
    except LakeError as error:
        raise UsageError(
            f"the selection is not valid SQL over {table}: {error.what}",
            where=f"where = {where!r}",
            remedy=error.remedy or f"columns: {', '.join(lake.table(table).schema.arrow.names)}",
        ) from error
    return rows.join(pl.DataFrame(kept).lazy(), on=key, how="semi", maintain_order="left")
