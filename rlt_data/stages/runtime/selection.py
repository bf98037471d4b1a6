"""Select the rows that a stage processes: all of a table, those of a predicate, the first N, or one run's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl
import pyarrow as pa

from rlt_data.errors import LakeError, UsageError
from rlt_data.lake import Lake, RunRecord
from rlt_data.lake.runs import sort_by_end
from rlt_data.lake.sql.query import check_predicate, find_named_tables, quote_name
from rlt_data.lake.tables.damage import DamageError
from rlt_data.stages.runtime.contract import StageConfig
from rlt_data.stages.runtime.run import StageRun


def select_rows(run: StageRun, table: str, where: str | None) -> pl.LazyFrame:
    """Scan the rows of an input of `run`, at its pinned version, for which `where` holds.

    `where` is an SQL predicate over the table's columns; it may query other tables in a subquery.
    Tables that it names, and those behind the views that it names, are read at their pinned versions.
    Raises `UsageError` where it is not valid SQL or names an unknown column.
    """
    versions = run.list_versions(find_named_tables([where] if where else []))
    return keep_rows(run.lake, run.read(table), table, where, versions=versions)


def check_predicates(lake: Lake, config: StageConfig) -> None:
    """Check the SQL predicates of a configuration, before a run is opened and a model is loaded.

    Raises `UsageError` as `select_rows`.
    """
    for name, where in config.map_predicates().items():
        table = config.find_table(name)
        if table is not None:
            _find_keys(lake, table, where, {}, name=name, limit=0)
            continue
        try:
            check_predicate(where)
        except LakeError as error:
            raise UsageError(
                f"the predicate is not valid SQL: {error.what}", where=f"{name} = {where!r}"
            ) from error


def keep_rows(
    lake: Lake,
    rows: pl.LazyFrame,
    table: str,
    where: str | None,
    *,
    versions: Mapping[str, int] | None = None,
) -> pl.LazyFrame:
    """Keep those of `rows`, a scan of `table`, for which `where` holds; as `select_rows`, outside a run.

    `versions` pins the tables that `where` names, also where a view such as `token_scores` reads them; other
    tables are read at their newest version.
    """
    if where is None:
        return rows
    kept = _find_keys(lake, table, where, versions)
    key = lake.table(table).schema.key
    return rows.join(pl.DataFrame(kept).lazy(), on=key, how="semi", maintain_order="left")


def _find_keys(
    lake: Lake,
    table: str,
    where: str,
    versions: Mapping[str, int] | None,
    *,
    name: str = "where",
    limit: int | None = None,
) -> pa.Table:
    """Query the keys of the rows of `table` for which `where` holds, the value of the field `name`."""
    key = lake.table(table).schema.key
    query = f"SELECT {quote_name(key)} FROM {quote_name(table)} WHERE (\n{where}\n)"
    try:
        check_predicate(where)
        limited = query if limit is None else f"{query} LIMIT {limit}"
        return lake.sql(limited, versions=versions, incomplete=True)  # A run checks its inputs itself.
    except DamageError:
        raise
    except LakeError as error:
        if error.where not in (where, "the query"):  # It is about the table.
            raise
        raise UsageError(
            f"the predicate is not valid SQL over {table}: {error.what}",
            where=f"{name} = {where!r}",
            remedy=error.remedy or f"columns: {', '.join(lake.table(table).schema.arrow.names)}",
        ) from error


def limit_rows(rows: pl.LazyFrame, limit: int | None, *, key: str, order: Sequence[str]) -> pl.LazyFrame:
    """Keep the first `limit` of `rows` in the order of the columns `order`, all of them where it is None.

    `key` is a column that identifies a row. Only the keys and the columns of the order are held in memory.
    """
    if limit is None:
        return rows
    first = rows.select(*dict.fromkeys([*order, key])).sort(*order, key).head(limit).select(key).collect()
    return rows.join(first.lazy(), on=key, how="semi", maintain_order="left")


def find_run(lake: Lake, stage: str, run_id: str | None) -> RunRecord:
    """Find the run that `run_id` (or a prefix) names, or the run of `stage` that finished last.

    Raises `LakeError` where there is none, or where the named one is another stage's or not finished.
    """
    if run_id is not None:
        run = lake.run(run_id)
        if run.stage != stage or not run.finished:
            raise LakeError(
                f"run {run_id!r} is not a finished run of {stage}",
                where=f"it is a run of {run.stage}, {run.status}",
                remedy="rlt-data log lists the runs",
            )
        return run
    finished = [run for run in lake.runs() if run.stage == stage and run.finished]
    if not finished:
        raise LakeError(f"there is no finished run of {stage}", where=lake.uri, remedy=f"rlt-data {stage}")
    return sort_by_end(lake, finished)[-1]


def list_finished_writers(lake: Lake, table: str) -> list[str]:
    """List the ids of the finished runs that write `table`, the newest last."""
    finished = [
        run for run in lake.runs() if run.finished and any(state.table == table for state in run.outputs)
    ]
    return [run.run_id for run in sort_by_end(lake, finished)]
