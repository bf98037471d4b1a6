"""Schema migrations: an append-only list of named changes, recorded in the lake.

The table `_rlt_data` beside the data tables has one row per migration that was applied to the lake, with the
version of the program that applied it. A lake that records an unknown migration was written by a newer
program and is refused. Missing migrations are applied before the first write; reading an older lake needs
none of them, since absent columns are read as null.

Rules: never edit or remove a released migration, only append. A new column is nullable. A step may run again
after a crash and must then change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import pyarrow as pa
from deltalake import DeltaTable, Field
from deltalake import Schema as DeltaSchema
from deltalake.exceptions import DeltaError, TableNotFoundError

from rlt_data.errors import LakeError
from rlt_data.hashing import hash_content
from rlt_data.lake.location import Location
from rlt_data.lake.tables.table import Table
from rlt_data.lake.tables.writer import STORAGE_REMEDY, describe_failure
from rlt_data.schemas import COUNT, TEXT, TIME, Column, TableSchema

RECORD = TableSchema(
    "_rlt_data",
    "One migration that was applied to this lake.",
    (
        Column("migration", TEXT, "Name of the migration.", nullable=False),
        Column("number", COUNT, "Position in the list of migrations, from 0.", nullable=False),
        Column("about", TEXT, "What it changes.", nullable=False),
        Column("program", TEXT, "Version of rlt-data that applied it.", nullable=False),
        Column("applied_at", TIME, "When it was applied.", nullable=False),
        Column("run_id", TEXT, "Always `migration`.", nullable=False),
    ),
)


@dataclass(frozen=True)
class AddColumn:
    """Adds a nullable column to a table; it is null in rows written before."""

    table: str
    column: str
    type: pa.DataType

    def apply(self, location: Location, storage_options: Mapping[str, str] | None) -> None:
        """Add the column unless the table has it or does not exist yet.

        Raises `LakeError` where the storage keeps refusing.
        """
        last: Exception | None = None
        for _ in range(20):
            try:
                delta = DeltaTable(
                    location.join(self.table), storage_options=dict(storage_options or {}) or None
                )
            except TableNotFoundError:
                return
            if self.column in {field.name for field in delta.schema().fields}:
                return
            field: Field = DeltaSchema.from_arrow(pa.schema([(self.column, self.type)])).fields[0]
            try:
                delta.alter.add_columns([field])
                return
            except (DeltaError, OSError) as error:
                last = error  # Another process may have added the column, or the reply was lost: look again.
        raise LakeError(
            f"column {self.column!r} could not be added: {describe_failure(last) if last else ''}",
            where=location.join(self.table),
            remedy=STORAGE_REMEDY,
        ) from last


@dataclass(frozen=True)
class Migration:
    """One named change, made of steps; `signatures` are those of the tables that it releases or changes.

    A table that no migration lists is not released yet, and its schema may still change.
    """

    name: str
    about: str
    signatures: Mapping[str, str]
    steps: tuple[AddColumn, ...] = ()


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "0001-first-tables",
        "The tables of version 0.1.",
        {
            "questions": "1710f8df3f9a0c5b68d8c4200bc3810c",
            "traces": "147abf3f3ff4a92e4f583a27291f32cb",
            "scores": "71688ea92d176432c5f8d52150fb6b75",
            "rewards": "14d25c6dfd5bcbb97be62dd11e301b58",
            "rankings": "d6b3fb49616458c9d644cb4579f1bed5",
            "distillation": "20a21a98079df5b6bc28ff4490b38d11",
            "rollouts": "8ff9d9e4def5f4c83a884af5db570d2f",
            "metrics": "82f22db4a05920dd3d877ece9837e8ca",
            "rejects": "ab5298b6cfd563cbec6ab2bf6989681c",
            "runs": "d9820359d109d548a761bbaceb2bfbf0",
        },
    ),
    Migration(
        "0002-combined-scores-and-completions",
        "The scores of a combined reward, and where the completion of an example begins.",
        {
            "rankings": "09c09a54954685950a16b1d876533326",
            "distillation": "3db4a54d682039746b83874ec86ef680",
        },
        (
            AddColumn("rankings", "score_ids", pa.list_(pa.string())),
            AddColumn("distillation", "completion_start", pa.int32()),
        ),
    ),
    Migration(
        "0003-parents-of-traces",
        "The trace that a rewritten one was made from.",
        {"traces": "e8f244d23ac4e682ba61d93ca45d533a"},
        (AddColumn("traces", "parent_trace_id", pa.string()),),
    ),
)


def open_record(location: Location, storage_options: Mapping[str, str] | None) -> Table:
    """Return the table that records a lake's migrations."""
    return Table(location.join(RECORD.name), RECORD, storage_options, local=location.local)


def check_record(record: Table, migrations: Sequence[Migration] = MIGRATIONS) -> list[Migration]:
    """Return the migrations that a lake lacks. Raises `LakeError` for a lake of a newer program."""
    applied = record.to_arrow(columns=["migration", "program"]).to_pylist()
    names = {migration.name for migration in migrations}
    newer = [row for row in applied if row["migration"] not in names]
    if newer:
        raise LakeError(
            f"this lake was written by a newer version of rlt-data: it has the migration "
            f"{newer[-1]['migration']!r}, which version {version('rlt-data')} does not have",
            where=record.uri,
            remedy=f"install rlt-data {newer[-1]['program']} or later",
        )
    done = {row["migration"] for row in applied}
    return [migration for migration in migrations if migration.name not in done]


def apply_migrations(
    location: Location,
    storage_options: Mapping[str, str] | None,
    migrations: Sequence[Migration] = MIGRATIONS,
    *,
    again: bool = False,
) -> list[str]:
    """Apply the migrations that a lake lacks, in order, record each once, and return the names recorded.

    With `again`, the steps of recorded ones run too: a log that was repaired may have lost their changes.
    """
    record = open_record(location, storage_options)
    recorded = []
    lacking = check_record(record, migrations)
    for migration in migrations:
        if again or migration in lacking:
            for step in migration.steps:
                step.apply(location, storage_options)
        if migration not in lacking:
            continue
        row = {
            "migration": migration.name,
            "number": migrations.index(migration),
            "about": migration.about,
            "program": version("rlt-data"),
            "applied_at": datetime.now(UTC),
        }
        rows = pa.Table.from_pylist([row], schema=RECORD.arrow.remove(len(RECORD.columns) - 1))
        if record.commit(rows, run_id="migration", chunk_id=hash_content(migration.name)).written:
            recorded.append(migration.name)
    return recorded
