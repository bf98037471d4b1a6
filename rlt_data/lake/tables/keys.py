"""Keys that are unique in a table, whoever writes: the guard of tables whose rows are made once.

Application transactions tell chunks apart, not rows: two runs that overlap (two ingests of files with the
same problem) make different chunks. For a table of unique keys, every append therefore carries one
transaction of the same name, so that of two appends at the same moment one fails and looks again; and each
look drops the rows whose keys stand in files that appeared since the last one.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
from deltalake import DeltaTable

UNIQUE_KEYS = frozenset({"questions", "traces", "scores", "evaluations"})
"""Tables that never hold the same key twice; in the others a key may come again in another run."""


class KeyGuard:
    """Knows the keys in the files of a table that were not there when it began to watch."""

    def __init__(
        self,
        key: str,
        list_files: Callable[[DeltaTable], list[str]],
        read_keys: Callable[[list[str]], list[str]],
    ) -> None:
        self._key = key
        self._list_files = list_files
        self._read_keys = read_keys
        self._files: set[str] = set()
        self._keys: set[str] = set()
        self._version: int | None = None

    def ignore(self, delta: DeltaTable) -> None:
        """Take the files of this snapshot as known: the writer looks at their rows itself."""
        self._files.update(self._list_files(delta))

    def note_commit(self, delta: DeltaTable, rows: pa.Table | None) -> None:
        """Take what was just committed as seen; `rows` where the writer does not remember them itself."""
        self._version = delta.version()
        if rows is not None:
            self._keys.update(rows.column(self._key).to_pylist())

    def split(self, delta: DeltaTable, rows: pa.Table) -> tuple[pa.Table, list[str]]:
        """Return the rows whose keys are new to this snapshot, and the keys of the others."""
        if delta.version() != self._version:
            appeared = [file for file in self._list_files(delta) if file not in self._files]
            if appeared:
                self._keys.update(self._read_keys(appeared))
                self._files.update(appeared)
            self._version = delta.version()
        keep, known = [], []
        seen: set[str] = set()
        for place, value in enumerate(rows.column(self._key).to_pylist()):
            if value in self._keys or value in seen:
                known.append(value)
            else:
                seen.add(value)
                keep.append(place)
        return (rows.take(pa.array(keep, pa.int64())) if known else rows), known
