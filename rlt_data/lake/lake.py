"""The lake: versioned tables at one place, with SQL, runs, lineage and upkeep over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from rlt_data.errors import LakeError
from rlt_data.lake.lineage import LineageStep, trace_lineage
from rlt_data.lake.location import resolve_location
from rlt_data.lake.migrations import apply_migrations, check_record, open_record
from rlt_data.lake.runs import RunRecord, read_newest_states
from rlt_data.lake.sql.query import run_query
from rlt_data.lake.tables.table import NO_VERSION, Table
from rlt_data.lake.upkeep import RETENTION_HOURS, Compaction, Vacuum, compact_tables, vacuum_tables
from rlt_data.schemas import TABLES
from rlt_data.suggestions import suggest_name


class NoLakeError(LakeError):
    """A place holds no lake yet, where one must be."""


class Lake:
    """Versioned tables in a directory or at a URI.

    `uri` is a path, a file:// URI or an object-storage URI such as s3://bucket/prefix; without one
    `$RLT_DATA_LAKE`, then `./lake`. `storage_options` go to the storage as they are; without them the usual
    environment variables (`AWS_*` and the like) count. Raises `LakeError` for a place that holds no lake
    where `create` is false, and for a lake that a newer program wrote.
    """

    def __init__(
        self,
        uri: str | Path | None = None,
        *,
        create: bool = True,
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        self._location = resolve_location(uri)
        self.uri = self._location.uri
        self.storage_options = dict(storage_options) if storage_options else None
        self._tables = {
            name: Table(
                self._location.join(name),
                schema,
                self.storage_options,
                local=self._location.local,
                before_writing=self.prepare,
            )
            for name, schema in TABLES.items()
        }
        self._prepared = False
        if self.local and Path(self.uri).exists() and not Path(self.uri).is_dir():
            raise LakeError("a lake is a directory, and this is a file", where=self.uri)
        record = open_record(self._location, self.storage_options)
        check_record(record)
        if not create and record.version() == NO_VERSION:
            raise NoLakeError(
                "there is no lake here", where=self.uri, remedy="`rlt-data init`, or name another with --lake"
            )

    @property
    def local(self) -> bool:
        """Whether the lake lies in a directory of this machine."""
        return self._location.local

    def prepare(self) -> list[str]:
        """Make the lake ready for writing: apply and record the migrations that it lacks, and name them.

        Happens by itself before the first write.
        """
        if self._prepared:
            return []
        if self.local:
            Path(self.uri).mkdir(parents=True, exist_ok=True)
        applied = apply_migrations(self._location, self.storage_options)
        self._prepared = True
        return applied

    def table(self, name: str) -> Table:
        """Return one table. Raises `LakeError` with the nearest names for one that is not known."""
        if name not in self._tables:
            raise LakeError(
                f"there is no table {name!r}", where=self.uri, remedy=suggest_name(name, self._tables)
            )
        return self._tables[name]

    def tables(self) -> list[Table]:
        """Return every table, in the order of the pipeline, also those that hold nothing yet."""
        return list(self._tables.values())

    def sql(
        self, query: str, *, versions: Mapping[str, int] | None = None, allow_files: bool = False
    ) -> pa.Table:
        """Answer one read-only SQL statement (DuckDB) as Arrow.

        `traces` names a table at its newest version and `"traces@3"` at an older one. `runs` shows the
        newest state of each run, `run_events` all states, and `token_scores` one row per scored token.
        `versions` pins tables: under its plain name a pinned table has the rows of that version, also inside
        `token_scores` and `run_events`; version -1 has none. `allow_files` also lets the query read and write
        files. Raises `LakeError` with DuckDB's message, and for a table or version that does not exist.
        """
        return run_query(self, query, versions=versions, allow_files=allow_files)

    def runs(self) -> list[RunRecord]:
        """Return the newest state of each run, in the order in which they started."""
        return read_newest_states(self.table("runs").scan())

    def run(self, run_id: str) -> RunRecord:
        """Return the newest state of one run, named by its id or a prefix of it.

        Raises `LakeError` where no run or more than one begins so.
        """
        fitting = [run for run in self.runs() if run.run_id.startswith(run_id)]
        exact = [run for run in fitting if run.run_id == run_id]
        if len(exact or fitting) != 1:
            raise LakeError(
                f"{len(fitting) or 'no'} run(s) begin with {run_id!r}",
                where=self.uri,
                remedy="`rlt-data log` lists the runs",
            )
        return (exact or fitting)[0]

    def lineage(self, run_id: str | None = None) -> list[LineageStep]:
        """Return a run and the runs that made what it read, back to the first; all where none is named."""
        return trace_lineage(self, run_id)

    def compact(self, tables: Sequence[str] | None = None) -> list[Compaction]:
        """Join the small files of the named tables, or of all; rows, digests and versions stay."""
        return compact_tables(self, tables)

    def vacuum(
        self,
        tables: Sequence[str] | None = None,
        *,
        retention_hours: int = RETENTION_HOURS,
        dry_run: bool = True,
        drop_pinned: bool = False,
    ) -> list[Vacuum]:
        """Delete files that only versions older than `retention_hours` need; see `vacuum_tables`."""
        return vacuum_tables(
            self, tables, retention_hours=retention_hours, dry_run=dry_run, drop_pinned=drop_pinned
        )
