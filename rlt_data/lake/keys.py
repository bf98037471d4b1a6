"""Keys that are unique in a table, whoever writes: the guard of tables whose rows are made once.

Application transactions tell chunks apart, not rows: two runs that overlap (two ingests of files with the
same problem) make different chunks. For a table of unique keys, every append therefore carries one
transaction of the same name, so that of two appends at the same moment one fails and looks again; and each
look drops the rows whose keys stand in files that appeared since the last one.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable

UNIQUE_KEYS = frozenset({"questions", "traces", "scores", "evaluations"})
"""Tables that never hold the same key twice; in the others a key may come again in another run."""


class KeyGuard:
    """Knows the keys in the files of a table that were not there when it began to watch."""

    def __init__(self, key: str, storage_options: Mapping[str, str] | None) -> None:
        self.key = key
        self._storage_options = dict(storage_options) if storage_options else None
        self._files: set[str] = set()
        self._keys: set[str] = set()

    def ignore(self, delta: DeltaTable, rows: pa.Table | None = None) -> None:
        """Take the files of this snapshot as known: the writer looked at them itself, or wrote `rows`."""
        self._files.update(delta.file_uris())
        if rows is not None:
            self._keys.update(rows.column(self.key).to_pylist())

    def split(self, delta: DeltaTable, rows: pa.Table) -> tuple[pa.Table, list[str]]:
        """Return the rows whose keys are new to this snapshot, and the keys of the others."""
        appeared = sorted(set(delta.file_uris()) - self._files)
        if appeared:
            frame = pl.scan_parquet(appeared, storage_options=self._storage_options).select(self.key)
            self._keys.update(frame.collect().get_column(self.key).to_list())
            self._files.update(appeared)
        keep, known = [], []
        seen: set[str] = set()
        for place, key in enumerate(rows.column(self.key).to_pylist()):
            if key in self._keys or key in seen:
                known.append(key)
            else:
                seen.add(key)
                keep.append(place)
        return (rows.take(pa.array(keep, pa.int64())) if known else rows), known
