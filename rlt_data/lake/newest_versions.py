"""The newest versions of `runs` and of the record of migrations, noted beside the tables.

What other tables lose at their end is found in `runs`. What these two lose there would look like runs that
were interrupted, or like an older lake; the notes show that they are shorter than they were.
"""

from __future__ import annotations

import json
import uuid
from contextlib import suppress

from rlt_data.lake.tables.damage import Damage
from rlt_data.lake.tables.folder import TableFolder
from rlt_data.lake.tables.table import NO_VERSION, Table

RECORD_NAME = "_rlt_data"
MOST_LOST = 100
"""A note so many versions past the end of its log is not trusted: a repair writes it anew."""

_VERSION = "version"
_WHAT = {
    "runs": "runs whose newest states are gone look interrupted",
    RECORD_NAME: "the migrations that it lacks are recorded again at the next write",
}


def name_note(table: str) -> str:
    """Return the path of a table's note within the lake."""
    return f"{RECORD_NAME}/newest_{table.strip('_')}.json"


def note_newest(lake: TableFolder, table: Table, version: int) -> None:
    """Note a version of a table that was committed. Nothing is raised: the commit is what counts.

    A version that is older than the noted one is not noted: runs whose states are gone may be run again one
    by one. Of two processes the slower one may note the older version, never one that was not written.
    """
    if version > read_newest(lake, table.name):
        with suppress(OSError):
            write_note(lake, table, version)


def write_note(lake: TableFolder, table: Table, version: int) -> None:
    """Replace a table's note, also by one of an older version. Raises `OSError` where the storage fails."""
    note = name_note(table.name)
    content = json.dumps({_VERSION: version}).encode()
    if not table.local:  # A write to object storage is atomic.
        lake.write(note, content)
        return
    draft = f"{note}.{uuid.uuid4().hex}"
    lake.write(draft, content)
    lake.move(draft, note)


def read_newest(lake: TableFolder, table: str) -> int:
    """Read the version that was noted last; -1 where the note is damaged, or missing as in version 0.1."""
    try:
        return _parse(lake.read(name_note(table)))
    except (OSError, ValueError):
        return NO_VERSION


def _parse(content: bytes) -> int:
    note = json.loads(content)
    version = note.get(_VERSION) if isinstance(note, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 0:
        raise ValueError("not a note of a version")
    return version


def find_damaged_note(lake: TableFolder, table: Table) -> list[Damage]:
    """Find whether the note of a table cannot be read; a lake of version 0.1 has none."""
    try:
        _parse(lake.read(name_note(table.name)))
    except ValueError:
        what = "does not hold the newest version of its table"
        return [Damage(table.name, "note", name_note(table.name), what)]
    except OSError:  # There is none.
        return []
    return []


def find_lost_end(lake: TableFolder, table: Table) -> list[Damage]:
    """Find whether a table ends before the noted version. Raises `LakeError` where it cannot be read."""
    noted = read_newest(lake, table.name)  # Before the table is opened: other processes commit to it.
    newest = table.version()
    if newest >= noted:
        return []
    ends = f"ends at version {newest}" if newest > NO_VERSION else "is gone"
    what = f"{ends}, and version {noted} was written: {_WHAT[table.name]}"
    if noted > newest + MOST_LOST:
        what = f"{ends}, and {name_note(table.name)} names version {noted}: either of them is damaged"
    return [Damage(table.name, "version", table.name, what)]
