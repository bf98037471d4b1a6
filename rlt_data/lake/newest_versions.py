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
    if version <= read_newest(lake, table.name):
        return
    note = name_note(table.name)
    content = json.dumps({_VERSION: version}).encode()
    with suppress(OSError):
        if not table.local:  # A write to object storage is atomic.
            lake.write(note, content)
            return
        draft = f"{note}.{uuid.uuid4().hex}"
        lake.write(draft, content)
        lake.move(draft, note)


def read_newest(lake: TableFolder, table: str) -> int:
    """Read the version that was noted last; -1 where there is none, as in a lake of version 0.1."""
    try:
        return int(json.loads(lake.read(name_note(table)))[_VERSION])
    except (OSError, ValueError, TypeError, KeyError):
        return NO_VERSION


def find_lost_end(lake: TableFolder, table: Table) -> list[Damage]:
    """Find whether a table ends before the noted version. Raises `LakeError` where it cannot be read."""
    noted = read_newest(lake, table.name)  # Before the table is opened: other processes commit to it.
    newest = table.version()
    if newest >= noted:
        return []
    ends = f"ends at version {newest}" if newest > NO_VERSION else "is gone"
    what = f"{ends}, and version {noted} was written: {_WHAT[table.name]}"
    return [Damage(table.name, "version", table.name, what)]
