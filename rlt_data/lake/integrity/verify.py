"""Verifies a lake: every file against what its commit recorded, every log, every count and digest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from rlt_data.errors import LakeError
from rlt_data.lake.catalog import Catalog
from rlt_data.lake.integrity.check import compare_runs
from rlt_data.lake.integrity.checkpoints import LogState, agrees_with, find_damaged_checkpoints
from rlt_data.lake.integrity.entries import find_unreadable_entries
from rlt_data.lake.integrity.runs_table import read_runs
from rlt_data.lake.migrations import check_record
from rlt_data.lake.newest_versions import find_damaged_note, find_lost_end
from rlt_data.lake.runs import RunRecord
from rlt_data.lake.tables.damage import AddedFile, Damage, describe_file, inspect_files, list_added_files
from rlt_data.lake.tables.folder import LOG
from rlt_data.lake.tables.log import LogEntry, name_entry, read_log
from rlt_data.lake.tables.table import NO_VERSION, Table
from rlt_data.progress import Reporter, Task


@dataclass(frozen=True)
class TableReport:
    """What was verified of one table: its damage, the files and bytes that were read, and what is in doubt.

    `notes` say what could not be checked. `opens` is whether the newest version can be opened.
    """

    table: str
    damages: tuple[Damage, ...]
    files: int
    bytes: int
    notes: tuple[str, ...]
    opens: bool = True


@dataclass
class _TableCheck:
    """What is known of a table while it is verified."""

    table: Table
    entries: list[LogEntry]
    current: dict[str, AddedFile] | None
    files: list[AddedFile]
    damages: list[Damage]


def verify_lake(catalog: Catalog, *, reporter: Reporter | None = None) -> list[TableReport]:
    """Read every file of every table, and compare it with what the log and `runs` recorded.

    Files of older versions are verified too, as far as they exist. Nothing is changed. Damage does not raise;
    `LakeError` is raised where the storage cannot be reached, and for a lake of a newer program.
    """
    reporter = reporter or Reporter(quiet=True)
    checks = [_open_table(table) for table in [catalog.record, *catalog.tables()]]
    with reporter.track("verifying", sum(len(check.files) for check in checks), "files") as task:
        notes = {check.table.name: _verify_files(check, task) for check in checks}
    if not checks[0].damages:
        check_record(catalog.record)
    runs = next(check for check in checks if check.table.name == "runs")
    records: Sequence[RunRecord] | None = None
    if not runs.damages:
        records, unreadable = read_runs(catalog)
        runs.damages += unreadable
    reports = []
    for check in checks:
        name = check.table.name
        if name in (catalog.record.name, "runs"):
            check.damages += find_damaged_note(catalog.folder, check.table)
        if name == catalog.record.name:
            check.damages += _find_lost_record(catalog)
            if check.current is not None:
                check.damages += find_lost_end(catalog.folder, check.table)
        elif name == "runs":
            if check.current is not None:
                check.damages += find_lost_end(catalog.folder, check.table)
        else:
            if records is None:
                notes[name].append("not compared with `runs`, which is damaged")
            elif check.current is not None:
                notes[name] += _compare(catalog, check, records)
        size = sum(file.size for file in check.files)
        opens = check.current is not None
        reports.append(
            TableReport(name, tuple(check.damages), len(check.files), size, tuple(notes[name]), opens)
        )
    return reports


def _open_table(table: Table) -> _TableCheck:
    """Read the log of a table, and open its newest version."""
    damages: list[Damage] = []
    try:
        entries = list(read_log(table.folder))
    except OSError as error:
        raise LakeError(f"the log of table {table.name} cannot be read: {error}", where=table.uri) from error
    for entry in entries:
        if entry.fault is not None:
            path = f"{table.name}/{name_entry(entry.version)}"
            damages.append(Damage(table.name, "log", path, entry.fault))
    current: dict[str, AddedFile] | None = None
    failure: str | None = None
    try:
        delta = table.open_version(None)
        current = {} if delta is None else list_added_files(delta)
    except LakeError as error:
        failure = error.what
        damages += find_unreadable_entries(table, entries)
    logged = {file.path: file for entry in entries if entry.fault is None for file in entry.list_files()}
    if not damages:
        damages += find_damaged_checkpoints(table, entries)
    if current is not None and not agrees_with(_replay(entries), current):
        failure = "names other files than its entries"
    if failure is not None and not damages:
        damages.append(Damage(table.name, "log", f"{table.name}/{LOG}", failure))
    return _TableCheck(table, entries, current, list({**(current or {}), **logged}.values()), damages)


def _replay(entries: Sequence[LogEntry]) -> LogState:
    state = LogState()
    for entry in entries:
        state.apply(entry)
    return state


def _verify_files(check: _TableCheck, task: Task) -> list[str]:
    """Verify the files of the newest version, and of older ones as far as they exist; return notes."""
    table, current = check.table, check.current or {}
    records = {path: record for entry in check.entries for path, record in entry.records.items()}
    existing = table.folder.list_sizes()
    unrecorded = 0
    for file in check.files:
        if file.path in current or file.path in existing:
            older = "" if file.path in current else " (only older versions need it)"
            found = list(inspect_files(table.name, table.folder, [file], local=table.local))
            what = found[0].what if found else None
            record = records.get(file.path)
            if what is None and record is not None:
                if record.size != file.size:
                    what = f"has {file.size:,} bytes in the log, and {record.size:,} in its record"
                elif table.folder.hash(file.path) != record.sha256:
                    what = "has not the recorded SHA-256: its content has changed"
            if what is None:
                what = _parse(table, file, whole=record is None)
            if what is not None:
                check.damages.append(describe_file(table.name, file, what + older))
            unrecorded += record is None
        task.advance()
    if not unrecorded:
        return []
    return [
        f"{unrecorded} files have no recorded SHA-256 (version 0.1 wrote none): their sizes, structure and "
        "rows were checked, changed values would go unnoticed"
    ]


def _parse(table: Table, file: AddedFile, *, whole: bool) -> str | None:
    """Read the footer of a Parquet file, or all of it, and say what is wrong."""
    try:
        with table.folder.open_input(file.path) as stream:
            parquet = pq.ParquetFile(stream, page_checksum_verification=True)
            rows = parquet.metadata.num_rows
            if whole:
                rows = sum(
                    parquet.read_row_group(number).num_rows for number in range(parquet.num_row_groups)
                )
    except (OSError, pa.ArrowException, ValueError) as error:
        return f"cannot be read: {' '.join(str(error).split())}"
    if file.rows is not None and rows != file.rows:
        return f"has {rows:,} rows instead of {file.rows:,}"
    return None


def _compare(catalog: Catalog, check: _TableCheck, records: Sequence[RunRecord]) -> list[str]:
    """Compare a table with `runs`; return notes."""
    broken = any(damage.kind == "file" for damage in check.damages)
    try:
        check.damages += compare_runs(catalog, check.table, records)
        return [] if broken else list(_compare_digest(check, records))
    except LakeError as error:
        return [] if broken else [f"not compared with `runs`: {error.what}"]


def _compare_digest(check: _TableCheck, records: Sequence[RunRecord]) -> Iterator[str]:
    """Compare rows and digest of the newest version that a run recorded since the last repair."""
    table = check.table
    repaired = max((entry.version for entry in check.entries if entry.is_repair), default=NO_VERSION)
    states = [
        state
        for record in records
        for state in (*record.inputs, *record.outputs)
        if state.table == table.name and state.digest and repaired < state.version < len(check.entries)
    ]
    if not states:
        return
    recorded = max(states, key=lambda state: state.version)
    try:
        found = table.state(recorded.version)
    except LakeError as error:
        yield f"digest not compared: {error.what}"
        return
    if (found.rows, found.digest) != (recorded.rows, recorded.digest):
        what = (
            f"has {found.rows:,} rows at version {recorded.version}, and runs recorded {recorded.rows:,}"
            if found.rows != recorded.rows
            else f"has other keys at version {recorded.version} than runs recorded"
        )
        check.damages.append(Damage(table.name, "version", table.name, what))


def _find_lost_record(catalog: Catalog) -> list[Damage]:
    if catalog.record.folder.list_sizes(LOG):
        return []
    return [Damage(catalog.record.name, "log", catalog.record.name, "is missing")]
