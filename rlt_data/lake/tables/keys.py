"""Unique keys: in some tables a key is stored once, whichever process or run writes it.

Application transactions identify chunks, not rows: two runs that overlap, such as two ingests of files with
the same problem, write different chunks. In a table of unique keys every append therefore carries one more
transaction, whose id is the same for all of them. Of two simultaneous appends one is refused and looks again,
and each look drops the rows whose keys are in files that appeared since the previous look.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
from deltalake import DeltaTable

UNIQUE_KEYS = frozenset({"questions", "traces", "scores", "evaluations", "grades"})
"""Tables in which each key occurs once; in other tables each run has keys of its own."""


class KeyGuard:
    """Finds rows whose keys are already in a table, reading only the files that are new to it."""

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

    def skip_files(self, delta: DeltaTable) -> None:
        """Never read the files of this snapshot: the writer checks their keys itself."""
        self._files.update(self._list_files(delta))

    def note_commit(self, before: int, version: int, rows: pa.Table | None) -> None:
        """Note a commit of one's own, made against version `before`; `version` is the newest one now.

        `rows` are those committed if the writer does not keep their keys itself. Where others have committed
        meanwhile, the next look reads what they appended.
        """
        if version == before + 1:
            self._version = version
        if rows is not None:
            self._keys.update(rows.column(self._key).to_pylist())

    def split(self, delta: DeltaTable, rows: pa.Table) -> tuple[pa.Table, list[str]]:
        """Return the rows whose keys are new to this snapshot, and the keys of the other rows."""
        if delta.version() != self._version:
            appeared = [file for file in self._list_files(delta) if file not in self._files]
            if appeared:
                self._keys.update(self._read_keys(appeared))
                self._files.update(appeared)
            self._version = delta.version()
        keep, existing = [], []
        new: set[str] = set()
        for index, key in enumerate(rows.column(self._key).to_pylist()):
            if key in self._keys or key in new:
                existing.append(key)
            else:
                new.add(key)
                keep.append(index)
        return (rows.take(pa.array(keep, pa.int64())) if existing else rows), existing
