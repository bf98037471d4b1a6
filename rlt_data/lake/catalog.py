"""The tables of a lake by name: opens a lake at its location and prepares it for writing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rlt_data.errors import LakeError
from rlt_data.lake.location import resolve_location
from rlt_data.lake.migrations import apply_migrations, check_record, open_record
from rlt_data.lake.newest_versions import note_newest
from rlt_data.lake.tables.folder import LOG, TableFolder
from rlt_data.lake.tables.table import Table
from rlt_data.lake.tables.writer import check_clock
from rlt_data.schemas import TABLES
from rlt_data.suggestions import suggest_name


class NoLakeError(LakeError):
    """There is no lake at a location where one must exist."""


class Catalog:
    """The tables of one lake; `rlt_data.lake.Lake` adds SQL, runs, lineage and upkeep.

    With `verify`, each file is read against its recorded SHA-256 before its rows are read.
    With `check` false, a lake whose record of migrations is damaged opens too: `verify` and `doctor` do that.
    """

    def __init__(
        self,
        uri: str | Path | None = None,
        *,
        create: bool = True,
        storage_options: Mapping[str, str] | None = None,
        check: bool = True,
        verify: bool = False,
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
                verify=verify,
            )
            for name, schema in TABLES.items()
        }
        self._prepared = False
        if self.local and Path(self.uri).exists() and not Path(self.uri).is_dir():
            raise LakeError("a lake is a directory, and this is a file", where=self.uri)
        self.record = open_record(self._location, self.storage_options)
        """The table that records the migrations of this lake."""
        if check:
            check_record(self.record)
        if not create and not self._exists():
            raise NoLakeError(
                "there is no lake here", where=self.uri, remedy="`rlt-data init`, or name another with --lake"
            )

    def _exists(self) -> bool:
        # A lake whose record of migrations is gone is damaged, and still a lake.
        return any(table.folder.list_sizes(LOG) for table in (self.record, *self.tables()))

    @property
    def local(self) -> bool:
        """Whether the lake is a directory on this machine."""
        return self._location.local

    @property
    def folder(self) -> TableFolder:
        """The files of the whole lake."""
        return TableFolder(self.uri, self.storage_options, local=self.local)

    def prepare(self, *, again: bool = False) -> list[str]:
        """Apply and record the schema migrations that the lake lacks, and return their names.

        Called automatically before the first write; a later call does nothing unless `again`, which also
        applies recorded migrations again.
        """
        if self._prepared and not again:
            return []
        check_clock()
        if self.local:
            Path(self.uri).mkdir(parents=True, exist_ok=True)
        applied = apply_migrations(self._location, self.storage_options, again=again)
        if applied:
            note_newest(self.folder, self.record, self.record.version())
        self._prepared = True
        return applied

    def table(self, name: str) -> Table:
        """Return one table. Raises `LakeError` with the nearest name for a table that does not exist."""
        if name not in self._tables:
            raise LakeError(
                f"there is no table {name!r}", where=self.uri, remedy=suggest_name(name, self._tables)
            )
        return self._tables[name]

    def tables(self) -> list[Table]:
        """Return every table in pipeline order, including empty ones."""
        return list(self._tables.values())
