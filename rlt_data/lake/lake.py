"""The lake: versioned tables in one location, with SQL, runs, lineage, integrity and upkeep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

import pyarrow as pa

from rlt_data.lake.catalog import Catalog
from rlt_data.lake.integrity.check import check_lake
from rlt_data.lake.integrity.repair import Repair, repair_lake
from rlt_data.lake.integrity.verify import TableReport, verify_lake
from rlt_data.lake.lineage import LineageStep, trace_lineage
from rlt_data.lake.row_lineage import LineageNode, trace_row
from rlt_data.lake.runs import RunRecord, find_run, list_runs
from rlt_data.lake.sql.execution import QueryLimits, QueryStream
from rlt_data.lake.sql.query import run_query, stream_query
from rlt_data.lake.tables.damage import Damage
from rlt_data.lake.upkeep import (
    PINNED_HOURS,
    RETENTION_HOURS,
    Compaction,
    Vacuum,
    compact_tables,
    vacuum_tables,
)
from rlt_data.progress import Reporter


class Lake(Catalog):
    """Versioned tables in a directory or at a URI.

    `uri` is a path, a file:// URI or an object-storage URI such as s3://bucket/prefix; by default
    `$RLT_DATA_LAKE`, then `./lake`. `storage_options` are passed to the storage unchanged; without them the
    usual environment variables (`AWS_*` and the like) apply. With `verify`, each file that is used is first
    read against the SHA-256 that its commit recorded. Raises `NoLakeError` if there is no lake and `create`
    is false, and `LakeError` for a lake that a newer version of this program wrote.
    """

    def sql(
        self,
        query: str,
        *,
        versions: Mapping[str, int] | None = None,
        allow_files: bool = False,
        limits: QueryLimits | None = None,
        incomplete: bool = False,
    ) -> pa.Table:
        """Answer one read-only SQL statement (DuckDB) as Arrow.

        `traces` names a table at its newest version and `"traces@3"` at an older one. `runs` shows the
        newest state of each run, `run_events` all states, and `token_scores` one row per scored token.
        `versions` pins tables: under its plain name a pinned table has the rows of that version, also inside
        `token_scores` and `run_events`; version -1 has none. `allow_files` also lets the query read and write
        files. `limits` bounds memory, disk and time; the returned rows do not count, see `stream_sql`.
        Raises `LakeError` with DuckDB's message, for a table or version that does not exist, and unless
        `incomplete` where rows that a finished run wrote are gone from a table read at its newest version,
        where entries of its log are gone up to an older one, and where `runs` lost states.
        """
        return run_query(
            self, query, versions=versions, allow_files=allow_files, limits=limits, incomplete=incomplete
        )

    def stream_sql(
        self,
        query: str,
        *,
        versions: Mapping[str, int] | None = None,
        allow_files: bool = False,
        limits: QueryLimits | None = None,
        incomplete: bool = False,
    ) -> AbstractContextManager[QueryStream]:
        """Answer like `sql`, batch by batch, as in `with lake.stream_sql(query) as rows: for batch in rows`.

        A batch is computed when it is fetched: what is not fetched takes no memory, and mostly no time.
        """
        return stream_query(
            self, query, versions=versions, allow_files=allow_files, limits=limits, incomplete=incomplete
        )

    def runs(self) -> list[RunRecord]:
        """Return the newest state of each run, in the order in which the runs started."""
        return list_runs(self)

    def run(self, run_id: str) -> RunRecord:
        """Return the newest state of the run with this id, or prefix of an id.

        Raises `LakeError` where no run or more than one matches.
        """
        return find_run(self, run_id)

    def lineage(self, run_id: str | None = None) -> list[LineageStep]:
        """Return a run and the runs that made what it read, back to the first; by default all runs."""
        return trace_lineage(self, run_id)

    def row_lineage(self, key: str) -> LineageNode | None:
        """Return what led to an evaluation, example, trace or question, by its key; see `trace_row`."""
        return trace_row(self, key)

    def check(self) -> list[Damage]:
        """Find damage without reading the data: of files, logs and rows of runs; see `check_lake`."""
        return check_lake(self)

    def verify(self, *, reporter: Reporter | None = None) -> list[TableReport]:
        """Read every file of every table, and compare it with what was recorded; see `verify_lake`."""
        return verify_lake(self, reporter=reporter)

    def repair(self, reports: Sequence[TableReport]) -> Repair:
        """Set aside what `verify` found damaged, and mark the runs that lost rows; see `repair_lake`."""
        return repair_lake(self, reports)

    def compact(self, tables: Sequence[str] | None = None) -> list[Compaction]:
        """Merge the small files of the named tables, by default of all; see `compact_tables`."""
        return compact_tables(self, tables)

    def vacuum(
        self,
        tables: Sequence[str] | None = None,
        *,
        retention_hours: int = RETENTION_HOURS,
        dry_run: bool = True,
        pinned_hours: int = PINNED_HOURS,
        drop_pinned: bool = False,
    ) -> list[Vacuum]:
        """Delete files that only versions older than `retention_hours` need; see `vacuum_tables`."""
        return vacuum_tables(
            self,
            tables,
            retention_hours=retention_hours,
            dry_run=dry_run,
            pinned_hours=pinned_hours,
            drop_pinned=drop_pinned,
        )
