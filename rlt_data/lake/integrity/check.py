"""The quick check of a whole lake: what can be found without reading the data."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from rlt_data.errors import LakeError
from rlt_data.lake.catalog import Catalog
from rlt_data.lake.integrity.rows import find_lost_versions, find_missing_rows, find_unrecorded_runs
from rlt_data.lake.integrity.runs_table import read_runs
from rlt_data.lake.newest_versions import find_damaged_note, find_lost_end
from rlt_data.lake.runs import RunRecord
from rlt_data.lake.tables.damage import Damage, inspect_files, list_added_files
from rlt_data.lake.tables.log import find_log_faults
from rlt_data.lake.tables.table import NO_VERSION, Table


def check_lake(catalog: Catalog, names: Collection[str] | None = None) -> list[Damage]:
    """Check that tables open, that their files exist and end well, and that no row of a run is missing.

    `names` selects tables, by default all. The files are not read: see `verify_lake`. Nothing raises: what
    cannot be opened is damage.
    """
    found = []
    records, unreadable = read_runs(catalog)
    for table in [catalog.record, *catalog.tables()]:
        if names is None or table.name in names:
            damages = _check_table(catalog, table, records)
            found += unreadable if table.name == "runs" and not damages else damages
    return found


def compare_runs(catalog: Catalog, table: Table, records: Sequence[RunRecord]) -> list[Damage]:
    """Compare the versions and rows of a table with what runs recorded; `records` are all runs.

    Raises `LakeError` where the table cannot be read.
    """
    return [
        *find_lost_versions(table, records),
        *find_missing_rows(catalog, records, [table.name]),
        *find_unrecorded_runs(table, records),
    ]


def _check_table(catalog: Catalog, table: Table, records: Sequence[RunRecord] | None) -> list[Damage]:
    damages: list[Damage] = []
    try:
        damages += find_log_faults(table.name, table.folder)
        if table.name in (catalog.record.name, "runs"):
            damages += find_damaged_note(catalog.folder, table)
        damages += _check_files(table)
        if table.name == catalog.record.name:
            if table.version() == NO_VERSION:
                damages.append(Damage(table.name, "log", table.name, "is missing"))
            else:
                damages += find_lost_end(catalog.folder, table)
        elif table.name == "runs":
            damages += find_lost_end(catalog.folder, table)
        elif records is not None:
            damages += compare_runs(catalog, table, records)
    except (LakeError, OSError) as error:
        what = error.what if isinstance(error, LakeError) else str(error)
        if not damages:
            damages.append(Damage(table.name, "log", table.name, f"cannot be read: {what}"))
    return damages


def _check_files(table: Table) -> Iterator[Damage]:
    delta = table.open_version(None)
    if delta is not None:
        files = list(list_added_files(delta).values())
        yield from inspect_files(table.name, table.folder, files, local=table.local)
