"""One table of the lake: exactly-once appends, scans of any version, versions, counts and digests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from rlt_data.errors import LakeError
from rlt_data.hashing import hash_content
from rlt_data.lake.tables.commits import Commit, Fence, commit_chunk, commit_fence
from rlt_data.lake.tables.conform import conform_rows
from rlt_data.lake.tables.digest import digest_keys
from rlt_data.lake.tables.files import list_files, scan_files
from rlt_data.lake.tables.keys import UNIQUE_KEYS, KeyGuard
from rlt_data.lake.tables.writer import STORAGE_REMEDY, TableWriter, describe_failure, open_table
from rlt_data.schemas import TableSchema

NO_VERSION = -1
"""The version of a table that holds nothing yet."""


@dataclass(frozen=True)
class TableVersion:
    """One commit of a table: when, by which operation and run, and the rows that it added."""

    version: int
    timestamp: datetime
    operation: str
    rows_added: int | None
    run_id: str | None
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class TableState:
    """What a table holds at one version; `digest` depends on the set of keys alone, not on order or files."""

    table: str
    version: int
    rows: int
    digest: str


class Table:
    """One table of a lake. Made by `Lake.table`; safe to use from several threads and processes."""

    def __init__(
        self,
        uri: str,
        schema: TableSchema,
        storage_options: Mapping[str, str] | None = None,
        *,
        local: bool = True,
        before_writing: Callable[[], object] | None = None,
    ) -> None:
        self.uri = uri
        self.local = local
        self.schema = schema
        self._storage_options = dict(storage_options) if storage_options else None
        self._writer = TableWriter(uri, schema, storage_options, before_writing)
        self._guard = (
            KeyGuard(schema.key, self.list_files, self._read_keys) if schema.name in UNIQUE_KEYS else None
        )
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The table's name."""
        return self.schema.name

    def append(
        self,
        rows: pa.Table | pl.DataFrame,
        *,
        run_id: str,
        chunk_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Append `rows` exactly once and return the table's version that holds them.

        `chunk_id` is the identity of the chunk, by default the content hash of its sorted keys: a chunk
        committed before, by whatever process, is not written again. In `questions`, `traces`, `scores` and
        `evaluations` that holds for each row by its key. `metadata` stands in the commit.
        Raises `LakeError` where the rows do not fit the schema or the storage refuses.
        """
        return self.commit(rows, run_id=run_id, chunk_id=chunk_id, metadata=metadata).version

    def commit(
        self,
        rows: pa.Table | pl.DataFrame,
        *,
        run_id: str,
        chunk_id: str | None = None,
        metadata: Mapping[str, str] | None = None,
        fence: Fence | None = None,
    ) -> Commit:
        """Append as `append` does, also saying whether this call wrote the chunk, and under a run's fence."""
        table = conform_rows(rows, self.schema, run_id=run_id)
        if table.num_rows == 0:
            return Commit(self.version(), written=False)
        if chunk_id is None:
            chunk_id = hash_content(self.name, sorted(table.column(self.schema.key).to_pylist()))
        stated = {"rlt_data.run_id": run_id, **(metadata or {})}
        with self._lock:
            return commit_chunk(
                self._writer.take_snapshot,
                table,
                chunk_id=chunk_id,
                metadata=stated,
                fence=fence,
                guard=self._guard,
            )

    def watch_keys(self, version: int) -> None:
        """Take the keys of a version as known to the caller, which leaves their rows out itself.

        Without it, the first append to a table of unique keys reads all of them.
        """
        if self._guard is not None:
            with suppress(LakeError):  # Of a vacuumed version nothing is known, and the guard reads all.
                delta = self.open_version(version)
                if delta is not None:
                    self._guard.ignore(delta)

    def raise_fence(self, fence: Fence) -> None:
        """From here on, refuse commits under a smaller number of the same fence."""
        with self._lock:
            commit_fence(self._writer.take_snapshot, fence, {"rlt_data.run_id": fence.name})

    def scan(self, version: int | None = None) -> pl.LazyFrame:
        """Scan the newest or an older version; without data, an empty frame with the schema.

        Columns that an older lake lacks are null. Raises `LakeError` naming the versions that exist.
        """
        delta = self.open_version(version)
        return scan_files(self.list_files(delta), self.schema, self._storage_options)

    def to_arrow(self, version: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the newest or an older version as Arrow, with exactly the schema's types.

        Raises `LakeError` for an unknown version or column, and where the storage refuses.
        """
        names = [column.name for column in self.schema.columns] if columns is None else list(columns)
        schema = pa.schema([self._get_field(name) for name in names])
        # Not through delta-rs's own file system: a thread of Arrow's that calls back into Python while the
        # interpreter ends would abort the process.
        frame = self._collect(self.scan(version).select(names))
        return frame.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)

    def version(self) -> int:
        """Return the newest version, or -1 where nothing was written yet."""
        delta = self.open_version(None)
        return NO_VERSION if delta is None else int(delta.version())

    def versions(self) -> list[TableVersion]:
        """List the commits, newest first."""
        return self.list_versions()

    def list_versions(self, limit: int | None = None) -> list[TableVersion]:
        """List the newest `limit` commits, newest first."""
        delta = self.open_version(None)
        if delta is None or limit == 0:
            return []
        return [_read_version(entry) for entry in delta.history(limit)]

    def count(self, version: int | None = None) -> int:
        """Count the rows of the newest or an older version, from the log alone."""
        delta = self.open_version(version)
        return 0 if delta is None else int(delta.count())

    def state(self, version: int | None = None) -> TableState:
        """Return version, row count and key digest; a table without data has version -1."""
        delta = self.open_version(version)
        if delta is None:
            return TableState(self.name, NO_VERSION, 0, digest_keys(pl.Series([], dtype=pl.String)))
        at = int(delta.version())
        keys = self._collect(self.scan(at).select(self.schema.key)).get_column(self.schema.key)
        return TableState(self.name, at, len(keys), digest_keys(keys))

    def list_files(self, delta: DeltaTable | None) -> list[str]:
        """List the Parquet files of an opened version."""
        return [] if delta is None else list_files(delta, self.uri, local=self.local)

    def open_version(self, version: int | None) -> DeltaTable | None:
        """Open the Delta table at a version; None where nothing was written yet.

        Raises `LakeError` where the version does not exist.
        """
        if version == NO_VERSION:
            return None
        delta = open_table(self.uri, self._storage_options)
        if delta is None:
            if version is None:
                return None
            raise LakeError(f"table {self.name} has no version {version}: it is empty", where=self.uri)
        if version is None or version == delta.version():
            return delta
        newest = delta.version()
        if not 0 <= version <= newest:
            raise LakeError(
                f"table {self.name} has no version {version}",
                where=self.uri,
                remedy=f"versions 0 to {newest} exist",
            )
        try:
            delta.load_as_version(version)
        except DeltaError as error:
            raise LakeError(
                f"version {version} of table {self.name} cannot be read: {describe_failure(error)}",
                where=self.uri,
            ) from error
        if self.local and not all(Path(file).exists() for file in self.list_files(delta)):
            raise LakeError(
                f"version {version} of table {self.name} was vacuumed: files that it needs are deleted",
                where=self.uri,
                remedy=f"read the newest version, {newest}",
            )
        return delta

    def _read_keys(self, files: list[str]) -> list[str]:
        frame = scan_files(files, self.schema, self._storage_options).select(self.schema.key)
        return self._collect(frame).get_column(self.schema.key).to_list()

    def _collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        try:
            return frame.collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise LakeError(
                f"table {self.name} cannot be read: {describe_failure(error)}",
                where=self.uri,
                remedy=STORAGE_REMEDY,
            ) from error

    def _get_field(self, name: str) -> pa.Field:
        names = self.schema.arrow.names
        if name not in names:
            raise LakeError(
                f"table {self.name} has no column {name!r}",
                where=self.name,
                remedy="columns: " + ", ".join(names),
            )
        return self.schema.arrow.field(name)


def _read_version(entry: dict[str, object]) -> TableVersion:
    metrics = entry.get("operationMetrics")
    added = metrics.get("num_added_rows") if isinstance(metrics, dict) else None
    metadata = {key: str(value) for key, value in entry.items() if key.startswith("rlt_data.")}
    return TableVersion(
        version=int(str(entry["version"])),
        timestamp=datetime.fromtimestamp(int(str(entry["timestamp"])) / 1000, tz=UTC),
        operation=str(entry.get("operation", "")),
        rows_added=None if added is None else int(str(added)),
        run_id=metadata.get("rlt_data.run_id"),
        metadata=metadata,
    )
