"""One table of a lake: exactly-once appends, scans of any version, counts and digests."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from rlt_data.errors import LakeError
from rlt_data.hashing import hash_content
from rlt_data.lake.tables.commits import (
    Commit,
    Fence,
    commit_chunk,
    commit_fence,
    commit_repair,
    get_fence_number,
)
from rlt_data.lake.tables.conform import conform_rows
from rlt_data.lake.tables.damage import (
    AddedFile,
    Damage,
    explain_damage,
    inspect_files,
    inspect_hashes,
    list_added_files,
)
from rlt_data.lake.tables.data_files import FileRecord
from rlt_data.lake.tables.digest import digest_keys
from rlt_data.lake.tables.files import list_files, scan_files
from rlt_data.lake.tables.folder import TableFolder
from rlt_data.lake.tables.keys import UNIQUE_KEYS, KeyGuard
from rlt_data.lake.tables.log import REPAIR, STAGE_KEY, find_lost_commits, read_log
from rlt_data.lake.tables.writer import STORAGE_REMEDY, TableWriter, describe_failure, open_table
from rlt_data.schemas import TableSchema
from rlt_data.suggestions import suggest_name

NO_VERSION = -1
"""The version of a table that was never written."""


@dataclass(frozen=True)
class TableVersion:
    """One commit of a table: its time, operation and run, and the number of rows that it added."""

    version: int
    timestamp: datetime
    operation: str
    rows_added: int | None
    run_id: str | None
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class TableState:
    """The content of a table at one version; `digest` depends only on the set of keys (see `digest_keys`)."""

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
        verify: bool = False,
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
        self._verify = verify
        self._checked: set[str] = set()
        self._records: dict[str, FileRecord] = {}
        self._entries_read = 0
        self._by_run: tuple[int, dict[str, int]] | None = None
        self.folder = TableFolder(uri, storage_options, local=local)

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

        `chunk_id` identifies the chunk, by default as the content hash of its sorted keys: a chunk that any
        process committed before is not written again. In the tables of `keys.UNIQUE_KEYS` the same holds for
        each row by its key. `metadata` is stored in the commit.
        Raises `LakeError` if the rows do not fit the schema or the storage refuses.
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
        """Append like `append`, under a run's fence, and report what was written (see `Commit`)."""
        table = conform_rows(rows, self.schema, run_id=run_id)
        if table.num_rows == 0:
            return Commit(self.version(), written=False)
        if chunk_id is None:
            chunk_id = hash_content(self.name, sorted(table.column(self.schema.key).to_pylist()))
        metadata = {"rlt_data.run_id": run_id, **(metadata or {})}
        with self._lock:
            return commit_chunk(
                self._writer.take_snapshot,
                self.folder,
                table,
                key=self.schema.key,
                chunk_id=chunk_id,
                metadata=metadata,
                fence=fence,
                guard=self._guard,
            )

    def skip_key_check(self, version: int) -> None:
        """Do not check appended rows against the keys of `version`: the caller does that itself.

        Without it, the first append to a table of unique keys reads all keys.
        """
        if self._guard is not None:
            with suppress(LakeError):  # The files of a vacuumed version cannot be listed: all keys are read.
                delta = self.open_version(version)
                if delta is not None:
                    self._guard.skip_files(delta)

    def raise_fence(self, fence: Fence) -> None:
        """Refuse all later commits under the same fence with a smaller number."""
        with self._lock:
            commit_fence(self._writer.take_snapshot, fence, {"rlt_data.run_id": fence.name})

    def scan(self, version: int | None = None) -> pl.LazyFrame:
        """Scan the newest or an older version; a table that was never written is an empty frame.

        Columns that an older lake lacks are null. Raises `LakeError` if the version does not exist.
        """
        delta = self.open_version(version)
        return scan_files(self.list_files(delta), self.schema, self._storage_options)

    def to_arrow(self, version: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the newest or an older version as Arrow, with exactly the schema's types.

        Raises `LakeError` for an unknown version or column, and if the storage fails.
        """
        names = [column.name for column in self.schema.columns] if columns is None else list(columns)
        schema = pa.schema([self._get_field(name) for name in names])
        # Not through the file system of delta-rs: an Arrow thread that calls back into Python while the
        # interpreter exits would abort the process.
        frame = self.collect(self.scan(version).select(names))
        return frame.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)

    def version(self) -> int:
        """Return the newest version, or -1 if the table was never written."""
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

    def list_commits_of(self, run_id: str, since: int) -> list[TableVersion]:
        """List the commits of a run after version `since`, except those whose rows a repair set aside."""
        commits = self.list_versions(max(0, self.version() - since))
        repaired = any(commit.metadata.get(STAGE_KEY) == REPAIR for commit in commits)
        lost = find_lost_commits(list(read_log(self.folder))) if repaired else set()
        return [commit for commit in commits if commit.run_id == run_id and commit.version not in lost]

    def count(self, version: int | None = None) -> int:
        """Count the rows of the newest or an older version, reading only the log."""
        delta = self.open_version(version)
        return 0 if delta is None else int(delta.count())

    def state(self, version: int | None = None) -> TableState:
        """Return version, row count and key digest; a table that was never written has version -1."""
        delta = self.open_version(version)
        if delta is None:
            return TableState(self.name, NO_VERSION, 0, digest_keys(pl.Series([], dtype=pl.String)))
        at = int(delta.version())
        keys = self.collect(self.scan(at).select(self.schema.key)).get_column(self.schema.key)
        return TableState(self.name, at, len(keys), digest_keys(keys))

    def list_files(self, delta: DeltaTable | None) -> list[str]:
        """List the Parquet files of an opened version, each checked when it is listed first.

        Raises `LakeError` where a file is missing, has another size, or does not end as Parquet does; if the
        lake was opened with `verify`, also where its SHA-256 is not the recorded one.
        """
        if delta is None:
            return []
        files = list_files(delta, self.uri, local=self.local)
        unchecked = {file.rpartition("/")[2]: file for file in files if file not in self._checked}
        if unchecked:
            added = [file for path, file in list_added_files(delta).items() if path in unchecked]
            self.check_files(added, hashes=self._verify)
            self._checked.update(unchecked.values())
        return files

    def check_files(self, files: Sequence[AddedFile], *, hashes: bool) -> None:
        """Raise `LakeError` where files are damaged, by their size and end, or also by their SHA-256."""
        with self._explain_storage():
            found = list(inspect_files(self.name, self.folder, files, local=self.local))
            if hashes and not found:
                records = self.read_records()
                found = list(inspect_hashes(self.name, self.folder, files, records))
        if found:
            raise explain_damage(found, self.uri)

    def find_damage(self) -> list[Damage]:
        """Find which of the files that were used so far are not as their commits recorded them.

        For an error while reading: the engines that read Parquet do not say which file is damaged.
        """
        used = {file.rpartition("/")[2] for file in self._checked}
        with suppress(LakeError, OSError):
            files = [
                file for entry in read_log(self.folder) for file in entry.list_files() if file.path in used
            ]
            return [
                *inspect_files(self.name, self.folder, files, local=self.local),
                *inspect_hashes(self.name, self.folder, files, self.read_records()),
            ]
        return []

    def read_records(self) -> Mapping[str, FileRecord]:
        """Return what the commits recorded of their files, by path; files of version 0.1 have no record."""
        for entry in read_log(self.folder, start=self._entries_read):
            self._records |= entry.records
            if entry.fault is None:
                self._entries_read = entry.version + 1
        return self._records

    def count_by_run(self) -> dict[str, int]:
        """Count the rows of the newest version by run id, from the log where a file is of one run.

        Raises `LakeError` where a file is damaged; see `list_files`.
        """
        delta = self.open_version(None)
        if delta is None:
            return {}
        if self._by_run is None or self._by_run[0] != delta.version():
            counts: Counter[str] = Counter()
            mixed = set()
            checked = self.list_files(delta)
            for file in list_added_files(delta).values():
                if file.run_id is None or file.rows is None:
                    mixed.add(file.path)
                else:
                    counts[file.run_id] += file.rows
            if mixed:
                files = [file for file in checked if file.rpartition("/")[2] in mixed]
                scan = scan_files(files, self.schema, self._storage_options)
                for run_id, rows in self.collect(scan.group_by("run_id").len()).iter_rows():
                    counts[run_id] += rows
            self._by_run = int(delta.version()), dict(counts)
        return self._by_run[1]

    def find_fence(self, run_id: str) -> int | None:
        """Find the largest number under which the run `run_id` has committed here; None if it has not."""
        delta = self.open_version(None)
        return None if delta is None else get_fence_number(delta, run_id)

    def advance_version(self, version: int) -> None:
        """Make commits without rows until the newest version is at least `version`."""
        with self._lock:
            while (delta := self._writer.take_snapshot()).version() < version:
                commit_repair(delta, [], {STAGE_KEY: REPAIR})

    def open_version(self, version: int | None) -> DeltaTable | None:
        """Open the Delta table at a version; None if it was never written.

        Raises `LakeError` if the version does not exist or was vacuumed.
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
        if missing := self._find_missing(delta):
            current = open_table(self.uri, self._storage_options)
            if current is not None and missing & set(list_files(current, self.uri, local=self.local)):
                self.list_files(current)  # These files are damaged, not vacuumed.
            raise LakeError(
                f"version {version} of table {self.name} was vacuumed: some of its files are deleted",
                where=self.uri,
                remedy=f"read the newest version, {newest}",
            )
        return delta

    def _find_missing(self, delta: DeltaTable) -> set[str]:
        with self._explain_storage():
            existing = self.folder.list_sizes()
        files = list_files(delta, self.uri, local=self.local)
        missing = {file for file in files if file.rpartition("/")[2] not in existing}
        self._checked -= missing
        return missing

    @contextmanager
    def _explain_storage(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise LakeError(
                f"table {self.name} cannot be read: {describe_failure(error)}",
                where=self.uri,
                remedy=STORAGE_REMEDY,
            ) from error

    def _read_keys(self, files: list[str]) -> list[str]:
        frame = scan_files(files, self.schema, self._storage_options).select(self.schema.key)
        return self.collect(frame).get_column(self.schema.key).to_list()

    def collect(self, frame: pl.LazyFrame) -> pl.DataFrame:
        """Collect a frame that scans this table. Raises `LakeError` where the files cannot be read."""
        try:
            return frame.collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            if found := self.find_damage():
                raise explain_damage(found, self.uri) from error
            raise LakeError(
                f"table {self.name} cannot be read: {describe_failure(error)}",
                where=self.uri,
                remedy=f"`rlt-data verify` finds damaged files; {STORAGE_REMEDY}",
            ) from error

    def _get_field(self, name: str) -> pa.Field:
        names = self.schema.arrow.names
        if name not in names:
            raise LakeError(
                f"table {self.name} has no column {name!r}",
                where=self.name,
                remedy=suggest_name(name, names),
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
