"""Repairs a lake: sets damage aside, so that the tables are whole again, and marks the runs that lost rows.

Nothing is deleted: damaged files and log entries are moved to `_rlt_data/quarantine/TIME` within the lake. A
torn log entry is replaced by one without content, so that versions keep their numbers. A run that lost rows
then counts as interrupted; running it again makes them anew. No other process may write meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deltalake.exceptions import DeltaError

from rlt_data.errors import LakeError
from rlt_data.hashing import hash_content
from rlt_data.lake.catalog import Catalog
from rlt_data.lake.integrity.entries import make_entry
from rlt_data.lake.integrity.rows import FINGERPRINT_KEY, find_missing_rows, find_recorded_version
from rlt_data.lake.integrity.verify import TableReport
from rlt_data.lake.newest_versions import MOST_LOST, find_damaged_note, read_newest, write_note
from rlt_data.lake.runs import RunRecord, commit_state, draft_record, list_runs
from rlt_data.lake.tables.commits import Fence, commit_repair
from rlt_data.lake.tables.damage import Damage
from rlt_data.lake.tables.folder import LOG
from rlt_data.lake.tables.log import (
    CHECKPOINT,
    REPAIR,
    STAGE_KEY,
    find_transactions,
    list_entries,
    name_entry,
    read_log,
)
from rlt_data.lake.tables.table import NO_VERSION, Table, TableState
from rlt_data.lake.tables.writer import STORAGE_REMEDY, describe_failure

QUARANTINE = "_rlt_data/quarantine"
LOST_KEY = "lost"
_ATTEMPTS_TRIED = 1000


@dataclass
class Repair:
    """What a repair did: the files that it set aside, and the runs that count as interrupted since.

    `moved` maps the path of a file within the lake to its path in the quarantine.
    """

    quarantine: str
    moved: dict[str, str] = field(default_factory=dict)
    interrupted: list[Damage] = field(default_factory=list)


def repair_lake(catalog: Catalog, reports: Sequence[TableReport]) -> Repair:
    """Repair what `verify_lake` reported. Raises `LakeError` where the storage refuses."""
    repair = Repair(f"{QUARANTINE}/{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    try:
        damaged = {
            report.table: report
            for report in reports
            if any(damage.kind != "note" for damage in report.damages)
        }
        tables = {table.name: table for table in (catalog.record, *catalog.tables())}
        # The logs come first: to apply migrations and to write to any table, all of them must open.
        for name, report in damaged.items():
            _repair_log(catalog, tables[name], report, repair)
        # Each of these two is read to repair what follows.
        for name in (catalog.record.name, "runs"):
            if name in damaged:
                _remove_files(catalog, tables[name], damaged[name], repair)
            if name == catalog.record.name:
                catalog.prepare(again=True)  # Records again what was lost.
            _restore_noted_version(catalog, tables[name])
        records = list_runs(catalog)
        for table in catalog.tables():
            if table.name != "runs":
                _restore_version(table, find_recorded_version(table.name, records))
                if table.name in damaged:
                    _remove_files(catalog, table, damaged[table.name], repair)
        _mark_runs(catalog, repair, states_lost="runs" in damaged)
    except (DeltaError, OSError) as error:
        raise LakeError(
            f"the lake could not be repaired: {describe_failure(error)}",
            where=catalog.uri,
            remedy=STORAGE_REMEDY,
        ) from error
    return repair


def _remove_files(catalog: Catalog, table: Table, report: TableReport, repair: Repair) -> None:
    """Commit the removal of damaged files, and set them aside."""
    current = table.open_version(None)
    if current is None:
        return
    files = [damage.path for damage in report.damages if damage.kind == "file"]
    names = [path.rpartition("/")[2] for path in files]
    active = {file.rpartition("/")[2] for file in current.file_uris()}
    removed = [name for name in names if name in active]
    metadata = {STAGE_KEY: REPAIR, "rlt_data.set_aside": json.dumps(names)}
    transactions = find_transactions(list(read_log(table.folder)), removed)
    commit_repair(current, removed, metadata, transactions)
    existing = table.folder.list_sizes()
    for path, name in zip(files, names, strict=True):
        if name in existing:
            _set_aside(catalog, path, repair)


def _repair_log(catalog: Catalog, table: Table, report: TableReport, repair: Repair) -> None:
    """Replace torn entries by empty ones, and set checkpoints aside that are damaged or name their files."""
    torn = [
        damage.path for damage in report.damages if damage.kind == "log" and damage.path.endswith(".json")
    ]
    entries = list_entries(table.folder)
    for path in torn:
        version = int(Path(path).stem)
        if version in entries:
            _set_aside(catalog, path, repair)
        table.folder.write(name_entry(version), make_entry(table, version))
    if any(damage.kind == "log" for damage in report.damages):
        for name in table.folder.list_sizes(LOG):
            if name == "_last_checkpoint" or CHECKPOINT.fullmatch(name):
                _set_aside(catalog, f"{table.name}/{LOG}/{name}", repair)


def _restore_noted_version(catalog: Catalog, table: Table) -> None:
    """Restore the noted version of a table, and write the note anew where it cannot be true."""
    noted, newest = read_newest(catalog.folder, table.name), table.version()
    if noted <= newest + MOST_LOST:
        _restore_version(table, noted)
    if newest > NO_VERSION and (noted > newest + MOST_LOST or find_damaged_note(catalog.folder, table)):
        write_note(catalog.folder, table, newest)


def _restore_version(table: Table, recorded: int) -> None:
    if recorded > NO_VERSION and table.version() < recorded:
        table.advance_version(recorded)


def _set_aside(catalog: Catalog, path: str, repair: Repair) -> None:
    target = f"{repair.quarantine}/{path}"
    catalog.folder.move(path, target)
    repair.moved[path] = target


def _mark_runs(catalog: Catalog, repair: Repair, *, states_lost: bool) -> None:
    """Record runs that lost rows, their record or, if states were lost, perhaps their end, as interrupted."""
    records = list_runs(catalog)
    for record in records:
        if states_lost and not record.finished and record.ended_at is None:
            _commit_interrupted(catalog, record, "interrupted: a repair found its newest states missing", {})
            what = "lost its newest states, and may have finished"
            repair.interrupted.append(Damage("runs", "record", "runs", what, record.run_id, record.stage))
    lost: dict[str, list[Damage]] = {}
    for damage in find_missing_rows(catalog, records):
        lost.setdefault(str(damage.run_id), []).append(damage)
    by_id = {record.run_id: record for record in records}
    for run_id, damages in lost.items():
        _interrupt(catalog, by_id[run_id], damages)
        repair.interrupted += damages
    for table in catalog.tables():
        if table.name != "runs":
            repair.interrupted += _record_again(catalog, table, by_id.keys())


def _interrupt(catalog: Catalog, record: RunRecord, damages: Sequence[Damage]) -> None:
    rows = {damage.table: damage.rows or 0 for damage in damages}
    left = {name: written - rows.get(name, 0) for name, written in record.rows_written.items()}
    # Other numbers of the summary counted the lost rows too; the run counts anew when it resumes.
    counts = {"tables": left, LOST_KEY: rows}
    what = ", ".join(f"{number:,} rows of {name}" for name, number in rows.items())
    _commit_interrupted(catalog, record, f"interrupted: a repair found {what} missing", counts)


def _record_again(catalog: Catalog, table: Table, recorded: Any) -> list[Damage]:
    """Record the runs that wrote rows of a table and are not in `runs`: what their commits say of them."""
    counts = table.count_by_run()
    found: dict[str, dict[str, str]] = {}
    for version in table.versions():
        if version.run_id in counts.keys() - recorded and FINGERPRINT_KEY in version.metadata:
            found[str(version.run_id)] = dict(version.metadata)
    existing = {record.run_id for record in list_runs(catalog)}
    damages = []
    for run_id, metadata in found.items():
        if run_id not in existing:
            fingerprint = metadata[FINGERPRINT_KEY]
            draft = draft_record(
                metadata.get(STAGE_KEY, ""),
                config={},
                fingerprint=fingerprint,
                scheme_version=0,
                inputs=[
                    TableState(name, int(version), -1, "")
                    for name, version in json.loads(metadata.get("rlt_data.inputs", "{}")).items()
                ],
                models=[],
            )
            attempts = (n for n in range(_ATTEMPTS_TRIED) if hash_content(fingerprint, n) == run_id)
            record = replace(draft, run_id=run_id, attempt=next(attempts, 0))
            _commit_interrupted(catalog, record, "interrupted: a repair found its record missing", {})
            what = "was not in `runs`, and has rows here"
            damages.append(
                Damage(table.name, "record", table.name, what, run_id, draft.stage, counts[run_id])
            )
    return damages


def _commit_interrupted(catalog: Catalog, record: RunRecord, error: str, counts: dict[str, Any]) -> None:
    tables = [table for table in catalog.tables() if table.version() != NO_VERSION]
    fences = [number for table in tables if (number := table.find_fence(record.run_id)) is not None]
    sequence = max([record.sequence, *fences]) + 1
    commit_state(
        catalog,
        record,
        sequence=sequence,
        status="failed",
        outputs=record.outputs,
        counts=counts,
        ended_at=datetime.now(UTC),
        error=error,
        fence=Fence(record.run_id, sequence),
    )
