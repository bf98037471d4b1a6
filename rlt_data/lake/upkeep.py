"""Upkeep: compaction merges small files, and vacuuming deletes files that no kept version needs.

Neither changes the rows or their digest, nor for a time a version that an unfinished run has pinned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import DeltaError

from rlt_data.errors import LakeError, UsageError
from rlt_data.lake.catalog import Catalog
from rlt_data.lake.integrity.check import check_lake
from rlt_data.lake.runs import RunRecord, list_runs
from rlt_data.lake.sessions import find_last_sign, find_state
from rlt_data.lake.tables.commits import commit_files
from rlt_data.lake.tables.conform import conform_rows
from rlt_data.lake.tables.damage import REPAIR_REMEDY, list_added_files
from rlt_data.lake.tables.data_files import DataFile, write_data_file
from rlt_data.lake.tables.table import NO_VERSION, Table
from rlt_data.lake.tables.writer import STORAGE_REMEDY, check_clock, describe_failure

RETENTION_HOURS = 168
PINNED_HOURS = 720
MOST_HOURS = 1_000_000
TARGET_BYTES = 100 * 2**20


@dataclass(frozen=True)
class Compaction:
    """The result of the compaction of one table."""

    table: str
    version: int
    files_before: int
    files_after: int


@dataclass(frozen=True)
class Vacuum:
    """The files that a vacuum deleted, or would delete; `kept_versions` are pinned by unfinished runs."""

    table: str
    files: tuple[str, ...]
    kept_versions: tuple[int, ...]
    dry_run: bool


def compact_tables(catalog: Catalog, names: Sequence[str] | None = None) -> list[Compaction]:
    """Merge the small files of each table into large ones, in a new version with the same rows.

    Other processes may write meanwhile. The small files remain until a vacuum, for the older versions.
    Raises `LakeError` where a file has not its recorded SHA-256.
    """
    done = []
    catalog.prepare()  # Merged files have the columns of today.
    for table in _select_tables(catalog, names):
        delta = table.open_version(None)
        if delta is None:
            continue
        before = len(delta.file_uris())
        if before > 1:
            with _explain_failures(table):
                _merge_files(table, delta)
        done.append(Compaction(table.name, int(delta.version()), before, len(delta.file_uris())))
    return done


def _holds_pins(record: RunRecord, hours: int) -> bool:
    # The clock may have been ahead when the run started or ended.
    age = max(0.0, (datetime.now(UTC) - find_last_sign(record)).total_seconds())
    return age < hours * 3600 or find_state(record) == "running"


def _merge_files(table: Table, delta: DeltaTable) -> None:
    removed: list[str] = []
    added: list[DataFile] = []
    groups = _group_files(delta)
    files = list_added_files(delta)
    # Damage would be merged, and then pass for what was written.
    table.check_files([files[path] for paths in groups for path in paths], hashes=True)
    for paths in groups:
        tables = (conform_rows(part, table.schema, run_id="") for part in _read_parts(table, paths))
        added.append(write_data_file(table.folder, tables, key=table.schema.key))
        removed += paths
    if removed:
        commit_files(delta, added, removed, {"rlt_data.stage": "compact"})


def _group_files(delta: DeltaTable) -> list[list[str]]:
    """Group the files smaller than the target, so that each group's sizes add up to about the target."""
    groups: list[list[str]] = [[]]
    total = 0
    actions = pa.table(delta.get_add_actions(flatten=True))
    columns = ["path", "size_bytes", "modification_time"]
    for file in actions.select(columns).sort_by("modification_time").to_pylist():
        if file["size_bytes"] >= TARGET_BYTES:
            continue
        if total + file["size_bytes"] > TARGET_BYTES:
            groups.append([])
            total = 0
        groups[-1].append(file["path"])
        total += file["size_bytes"]
    return [group for group in groups if len(group) > 1]


def _read_parts(table: Table, paths: Sequence[str]) -> Iterator[pa.Table]:
    for path in paths:
        with table.folder.open_input(path) as stream:
            file = pq.ParquetFile(stream, page_checksum_verification=True)
            for number in range(file.num_row_groups):
                yield file.read_row_group(number)


def vacuum_tables(
    catalog: Catalog,
    names: Sequence[str] | None = None,
    *,
    retention_hours: int = RETENTION_HOURS,
    dry_run: bool = True,
    pinned_hours: int = PINNED_HOURS,
    drop_pinned: bool = False,
) -> list[Vacuum]:
    """Delete files that no version younger than `retention_hours` needs, and leftovers of interrupted writes.

    Older versions can no longer be read afterwards, except those that unfinished runs have pinned. A pin
    holds for `pinned_hours` after the run's last session started or ended, and as long as its process is
    known to run; with `drop_pinned` none holds. A run whose pin was dropped resumes from the newest version
    if that has the same rows. A retention shorter than the time of a commit may delete files that another
    process is writing. Raises `UsageError` for hours outside 0 to 1,000,000, and `LakeError` where a
    table or `runs` is damaged: files that only a lost entry of a log names would be deleted.
    """
    for name, hours in (("retention_hours", retention_hours), ("pinned_hours", pinned_hours)):
        if not 0 <= hours <= MOST_HOURS:
            raise UsageError(f"{hours} hours are out of range", where=name, remedy=f"0 to {MOST_HOURS}")
    check_clock()
    tables = _select_tables(catalog, names)
    _refuse_damage(catalog, tables)
    pinned: dict[str, set[int]] = {}
    if not drop_pinned:
        for record in list_runs(catalog):
            if not record.finished and _holds_pins(record, pinned_hours):
                for state in record.inputs:
                    pinned.setdefault(state.table, set()).add(state.version)
    done = []
    for table in tables:
        delta = table.open_version(None)
        if delta is None:
            continue
        kept = sorted(pinned.get(table.name, set()) - {NO_VERSION})
        with _explain_failures(table):
            files = delta.vacuum(
                retention_hours=retention_hours,
                dry_run=dry_run,
                enforce_retention_duration=False,
                full=True,
                keep_versions=kept or None,
                commit_properties=CommitProperties(custom_metadata={"rlt_data.stage": "vacuum"}),
            )
        done.append(Vacuum(table.name, tuple(sorted(files)), tuple(kept), dry_run))
    return done


def _refuse_damage(catalog: Catalog, tables: Sequence[Table]) -> None:
    names = {table.name for table in tables} | {"runs"}  # Pins are in `runs`.
    found = check_lake(catalog, names)
    if found:
        first = found[0]
        others = f", and {len(found) - 1} more damages" if len(found) > 1 else ""
        raise LakeError(
            f"the lake is damaged, so no file is deleted: {first.path} {first.what}{others}",
            where=catalog.table(first.table).uri,
            remedy=f"`rlt-data verify` finds all damage; {REPAIR_REMEDY}",
        )


@contextmanager
def _explain_failures(table: Table) -> Iterator[None]:
    try:
        yield
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise LakeError(
            f"upkeep of table {table.name} failed: {describe_failure(error)}",
            where=table.uri,
            # Delta reports a commit of another process; the others come from the storage.
            remedy="run the command again when no other process compacts or vacuums; no row is lost"
            if isinstance(error, DeltaError)
            else STORAGE_REMEDY,
        ) from error


def _select_tables(catalog: Catalog, names: Sequence[str] | None) -> list[Table]:
    return catalog.tables() if names is None else [catalog.table(name) for name in names]
