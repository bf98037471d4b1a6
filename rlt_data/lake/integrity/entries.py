"""Makes log entries without content, and finds those that delta-rs cannot read."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from rlt_data.lake.tables.damage import Damage
from rlt_data.lake.tables.folder import LOG
from rlt_data.lake.tables.log import REPAIR, STAGE_KEY, LogEntry, name_entry
from rlt_data.lake.tables.table import Table
from rlt_data.lake.tables.writer import TABLE_PROPERTIES, describe_failure


def make_entry(table: Table, version: int) -> bytes:
    """Make a log entry that changes nothing; the first one of a log describes the table."""
    if version == 0:
        # Not signed: files of an older lake may lack columns.
        with tempfile.TemporaryDirectory() as folder:
            DeltaTable.create(
                folder,
                table.schema.arrow,
                name=table.name,
                description=table.schema.about,
                configuration=TABLE_PROPERTIES,
            )
            return Path(folder, name_entry(0)).read_bytes()
    info = {"timestamp": int(datetime.now(UTC).timestamp() * 1000), "operation": "WRITE", STAGE_KEY: REPAIR}
    return json.dumps({"commitInfo": info}).encode()


def find_unreadable_entries(table: Table, entries: Iterable[LogEntry]) -> Iterator[Damage]:
    """Find the entries that delta-rs cannot read, each on its own, among those without a fault."""
    for entry in entries:
        if entry.fault is None and (error := _try_entry(table, entry.version)) is not None:
            what = f"is torn: {describe_failure(error)}"
            yield Damage(table.name, "log", f"{table.name}/{name_entry(entry.version)}", what)


def _try_entry(table: Table, version: int) -> Exception | None:
    content = table.folder.read(name_entry(version))
    contents = [content] if version == 0 else [make_entry(table, 0), content]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, LOG).mkdir()
        for number, entry in enumerate(contents):
            Path(folder, name_entry(number)).write_bytes(entry)
        try:
            delta = DeltaTable(folder)
            delta.get_add_actions(flatten=True)
            delta.history()
        except (DeltaError, pa.ArrowException, OSError, ValueError) as error:
            return error
    return None
