"""Compares the rows of each table with what `runs` recorded of them.

Tables only grow, so that a finished run has as many rows in the newest version as it counted when it ended,
and the newest version is at least the one that any run saw.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from rlt_data.errors import LakeError
from rlt_data.lake.catalog import Catalog
from rlt_data.lake.newest_versions import find_lost_end
from rlt_data.lake.runs import RunRecord, list_runs
from rlt_data.lake.tables.damage import Damage
from rlt_data.lake.tables.log import find_log_gaps
from rlt_data.lake.tables.table import Table

FINGERPRINT_KEY = "rlt_data.fingerprint"


def find_missing_rows(
    catalog: Catalog, records: Iterable[RunRecord], tables: Collection[str] | None = None
) -> list[Damage]:
    """Find the finished runs of `records` that have fewer rows in `tables`, by default all, than they wrote.

    Raises `LakeError` where a table cannot be read.
    """
    found = []
    for record in records:
        if record.finished:
            for name, written in record.rows_written.items():
                if written and (tables is None or name in tables):
                    rows = catalog.table(name).count_by_run().get(record.run_id, 0)
                    if rows < written:
                        what = f"lacks {written - rows:,} of {written:,} rows"
                        found.append(
                            Damage(name, "rows", name, what, record.run_id, record.stage, written - rows)
                        )
    return found


def find_lost_versions(table: Table, records: Iterable[RunRecord]) -> list[Damage]:
    """Find whether the newest version of a table is older than one that a run recorded.

    `records` were read before the table is opened here.
    """
    recorded = find_recorded_version(table.name, records)
    newest = table.version()
    if newest >= recorded:
        return []
    what = f"ends at version {newest}, and runs recorded version {recorded}: the newest commits are gone"
    return [Damage(table.name, "version", table.name, what)]


def find_recorded_version(table: str, records: Iterable[RunRecord]) -> int:
    """Find the newest version of a table that a run recorded; -1 if none did."""
    states = (state for record in records for state in (*record.inputs, *record.outputs))
    return max((state.version for state in states if state.table == table), default=-1)


def find_unrecorded_runs(table: Table, records: Sequence[RunRecord]) -> Iterator[Damage]:
    """Find runs that wrote rows of a table and are not in `runs`.

    Rows that were appended without a run (`Table.append`) do not count: their commits have no fingerprint.
    """
    counts = table.count_by_run()
    unknown = counts.keys() - {record.run_id for record in records}
    if not unknown:
        return
    stages = {
        version.run_id: version.metadata.get("rlt_data.stage")
        for version in table.versions()
        if version.run_id in unknown and FINGERPRINT_KEY in version.metadata
    }
    for run_id, stage in sorted(stages.items(), key=str):
        what = "is not in `runs`, and has rows here"
        yield Damage(table.name, "record", table.name, what, run_id, stage, counts[str(run_id)])


def count_rows_so_far(catalog: Catalog, record: RunRecord) -> dict[str, int]:
    """Count the rows that a run has in its tables now, of those tables that have any.

    Raises `LakeError` where a table cannot be read.
    """
    names = [state.table for state in record.outputs] or [table.name for table in catalog.tables()]
    counts = {name: catalog.table(name).count_by_run().get(record.run_id, 0) for name in names}
    return {name: rows for name, rows in counts.items() if rows and name != "runs"}


def find_lost_states(catalog: Catalog) -> list[Damage]:
    """Find whether `runs` lost states: entries of its log are empty or missing, or it ends too early.

    Raises `LakeError` where it cannot be read.
    """
    runs = catalog.table("runs")
    return [*find_lost_entries(runs), *find_lost_end(catalog.folder, runs)]


def find_lost_entries(table: Table, version: int | None = None) -> list[Damage]:
    """Find entries of a table's log, up to `version`, that are empty or missing.

    Delta reads an entry that is empty as one without rows.
    """
    return [
        Damage(table.name, "log", gap.path, f"is damaged: {gap.path} {gap.what}")
        for gap in find_log_gaps(table.name, table.folder, version)
    ]


def find_losses(catalog: Catalog, names: Collection[str]) -> list[Damage]:
    """Find rows and versions of the tables `names` that runs recorded and that are gone, by the logs alone.

    States that `runs` lost count for every table: it is then not known what the table should have.
    Raises `LakeError` where a table cannot be read.
    """
    if not names:
        return []
    found = find_lost_states(catalog)
    records = list_runs(catalog)
    for name in names:
        if name != "runs":
            found += find_missing_rows(catalog, records, [name])
            found += find_lost_versions(catalog.table(name), records)
    return found


def check_inputs(catalog: Catalog, names: Collection[str], records: Sequence[RunRecord]) -> None:
    """Raise `LakeError` if rows of the tables `names` are missing that finished runs wrote."""
    found = find_missing_rows(catalog, records, names)
    if found:
        first = found[0]
        others = f"; {len(found) - 1} more losses: `rlt-data doctor` lists them" if len(found) > 1 else ""
        raise LakeError(
            f"table {first.table} {first.what} that run {first.run_id} ({first.stage}) wrote{others}",
            where=catalog.table(first.table).uri,
            remedy=f"run {first.stage} again, which makes them anew (`rlt-data log {str(first.run_id)[:12]}` "
            "shows its options), or `rlt-data verify --repair` to go on without them",
        )
    for name in names:
        lost = find_lost_versions(catalog.table(name), records)
        if lost:
            raise LakeError(
                f"table {name} {lost[0].what}",
                where=catalog.table(name).uri,
                remedy="`rlt-data verify --repair`, then run again the commands that it names",
            )
