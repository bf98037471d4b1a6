"""The newest version of `runs` that was written, noted beside the table.

What other tables lose is found in `runs`. What `runs` itself loses at its end would look like runs that were
interrupted; this note shows that it is shorter than it was.
"""

from __future__ import annotations

import json
import uuid
from contextlib import suppress

from rlt_data.lake.catalog import Catalog
from rlt_data.lake.tables.damage import Damage
from rlt_data.lake.tables.table import NO_VERSION

NOTE = "_rlt_data/newest_run.json"
_VERSION = "version"


def note_newest_run(catalog: Catalog, version: int) -> None:
    """Note a version of `runs` that was committed. Nothing is raised: the commit is what counts.

    A version that is older than the noted one is not noted: runs whose states are gone may be run again one
    by one. Of two processes the slower one may note the older version, never one that was not written.
    """
    if version <= read_newest_run(catalog):
        return
    content = json.dumps({_VERSION: version}).encode()
    with suppress(OSError):
        if not catalog.local:  # A write to object storage is atomic.
            catalog.folder.write(NOTE, content)
            return
        draft = f"{NOTE}.{uuid.uuid4().hex}"
        catalog.folder.write(draft, content)
        catalog.folder.move(draft, NOTE)


def read_newest_run(catalog: Catalog) -> int:
    """Read the version that was noted last; -1 where there is none, as in a lake of version 0.1."""
    try:
        return int(json.loads(catalog.folder.read(NOTE))[_VERSION])
    except (OSError, ValueError, TypeError, KeyError):
        return NO_VERSION


def find_lost_states(catalog: Catalog) -> list[Damage]:
    """Find whether `runs` ends before the version that was noted. Raises `LakeError` if it cannot be read."""
    noted = read_newest_run(catalog)  # Before the table is opened: other processes commit to it.
    newest = catalog.table("runs").version()
    if newest >= noted:
        return []
    ends = f"ends at version {newest}" if newest > NO_VERSION else "is gone"
    what = f"{ends}, and version {noted} was written: runs whose newest states are gone look interrupted"
    return [Damage("runs", "version", "runs", what)]
