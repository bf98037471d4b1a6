"""The rows that a run appends: buffered, each key once, committed under the run's fence."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa

from rlt_data.errors import LakeError, UsageError
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.lake.runs import RunRecord
from rlt_data.lake.tables.commits import Fence
from rlt_data.lake.tables.conform import build_rows, conform_rows
from rlt_data.lake.tables.table import Table
from rlt_data.stages.runtime.counters import COUNTS_KEY, Counters

REJECTS = "rejects"
COMMIT_SECONDS_VARIABLE = "RLT_DATA_COMMIT_SECONDS"
COMMIT_SECONDS = 2.0
FLUSH_ROWS = 20_000
DICT_ROWS = 512
FLUSH_BYTES = 64 * 2**20


class RunOutputs:
    """The outputs of one run. A kill loses at most what is buffered.

    Rows are committed every `$RLT_DATA_COMMIT_SECONDS` (2 by default; 0 commits at every append; a longer
    interval makes fewer and larger files), and earlier when many are buffered.
    """

    def __init__(self, lake: Lake, first: RunRecord, sequence: int, names: Sequence[str]) -> None:
        self._tables: dict[str, Table] = {name: lake.table(name) for name in dict.fromkeys([*names, REJECTS])}
        self._first = first
        self._fence = Fence(first.run_id, sequence)
        self._buffers: dict[str, list[pa.Table]] = {name: [] for name in self._tables}
        self._dicts: dict[str, list[dict[str, Any]]] = {name: [] for name in self._tables}
        self._shapes: dict[str, set[frozenset[str]]] = {name: set() for name in self._tables}
        self._buffered_rows = 0
        self._buffered_bytes = 0
        self._last_flush = time.monotonic()
        self._commit_seconds = _read_commit_seconds()
        self._earlier: dict[str, set[str]] = {name: set() for name in self._tables}
        self._appended: dict[str, set[str]] = {name: set() for name in self._tables}
        self.skipped = 0
        """Rows not committed because another run had committed their keys since this run started."""
        for state in first.outputs:
            if state.table in self._tables:
                self._tables[state.table].skip_key_check(state.version)

    @property
    def names(self) -> list[str]:
        """The tables that the run may write, `rejects` among them."""
        return list(self._tables)

    def count_rows(self) -> dict[str, int]:
        """Count the rows of the whole run by table."""
        return {name: len(self._earlier[name] | self._appended[name]) for name in self._tables}

    def check_rows(self) -> None:
        """Raise `LakeError` where rows that the run has committed are gone from the lake already."""
        for name, rows in self.count_rows().items():
            found = self._tables[name].count_by_run().get(self._first.run_id, 0) if rows else 0
            if found < rows:
                raise LakeError(
                    f"table {name} has {found:,} of {rows:,} rows that this run wrote: it was damaged since",
                    where=self._tables[name].uri,
                    remedy="`rlt-data verify` names the damage; run the command again to make the rows anew",
                )

    def count_reasons(self) -> dict[str, int]:
        """Count the rejects of the whole run by reason, as `rejected_REASON`, the most frequent first."""
        if not self._earlier[REJECTS] and not self._appended[REJECTS]:
            return {}
        mine = self._tables[REJECTS].scan().filter(pl.col("run_id") == self._first.run_id)
        counts = mine.group_by("reason").len().sort("len", "reason", descending=[True, False]).collect()
        return {f"rejected_{reason}": number for reason, number in counts.iter_rows()}

    def resume(self) -> Iterator[tuple[str, int]]:
        """Fence off older sessions and read what they committed; yield the counts and rows of each commit."""
        starts = {state.table: state.version for state in self._first.outputs}
        for name, table in self._tables.items():
            table.raise_fence(self._fence)
            mine = table.scan().filter(pl.col("run_id") == self._first.run_id)
            keys = mine.select(table.schema.key).collect().get_column(table.schema.key)
            self._earlier[name] = set(keys.to_list())
            for commit in table.list_commits_of(self._first.run_id, starts.get(name, -1)):
                if COUNTS_KEY in commit.metadata:
                    yield commit.metadata[COUNTS_KEY], commit.rows_added or 0

    def add(self, name: str, rows: pa.Table | pl.DataFrame) -> None:
        """Buffer rows, except those whose key this run has appended before.

        Raises `LakeError` where they do not fit the table.
        """
        self._convert(name)
        kept = self._drop_repeated(name, self._conform(name, rows))
        if kept.num_rows:
            self._buffers[name].append(kept)
            self._buffered_rows += kept.num_rows
            self._buffered_bytes += kept.nbytes

    def add_dicts(self, name: str, rows: Sequence[dict[str, Any]]) -> None:
        """Buffer rows as dictionaries, to be converted to Arrow many at a time.

        Raises `LakeError` where a row does not fit the table: at once for the first row with its set of
        columns, for others when the batch is converted.
        """
        shapes, waiting = self._shapes[self._check_declared(name)], self._dicts[name]
        for row in rows:
            if (shape := frozenset(row)) not in shapes:
                self._conform(name, build_rows([row], self._tables[name].schema.arrow))
                shapes.add(shape)
        waiting.extend(dict(row) for row in rows)
        if len(waiting) >= DICT_ROWS:
            self._convert(name)

    def is_due(self) -> bool:
        """Whether enough is buffered, or enough time has passed, for a commit."""
        return (
            self._buffered_rows + sum(map(len, self._dicts.values())) >= FLUSH_ROWS
            or self._buffered_bytes >= FLUSH_BYTES
            or time.monotonic() - self._last_flush >= self._commit_seconds
        )

    def flush(self, pinned: Mapping[str, int], counters: Counters) -> None:
        """Commit what is buffered; the commit records run, inputs, and the counts since the last commit."""
        for name, chunks in self._buffers.items():
            self._convert(name)
            if not chunks:
                continue
            table = self._tables[name]
            rows = pa.concat_tables(chunks)
            keys = sorted(rows.column(table.schema.key).to_pylist())
            commit = table.commit(
                rows,
                run_id=self._first.run_id,
                # Rewards of two runs may have the same keys: a chunk is the run's own.
                chunk_id=hash_content(self._first.run_id, name, keys),
                metadata={
                    "rlt_data.stage": self._first.stage,
                    "rlt_data.fingerprint": self._first.fingerprint,
                    "rlt_data.inputs": json.dumps(dict(pinned), sort_keys=True),
                    COUNTS_KEY: counters.describe_pending(name),
                },
                fence=self._fence,
            )
            self._appended[name].difference_update(commit.skipped)
            self.skipped += len(commit.skipped)
            counters.mark_committed(name)
            chunks.clear()
        self._buffered_rows = self._buffered_bytes = 0
        self._last_flush = time.monotonic()

    def _check_declared(self, name: str) -> str:
        if name not in self._tables:
            raise LakeError(f"stage {self._first.stage} did not declare that it writes {name!r}", where=name)
        return name

    def _conform(self, name: str, rows: pa.Table | pl.DataFrame) -> pa.Table:
        schema = self._tables[self._check_declared(name)].schema
        return conform_rows(rows, schema, run_id=self._first.run_id)

    def _convert(self, name: str) -> None:
        """Convert waiting dictionaries to Arrow; a batch that does not fit is dropped with the error."""
        rows, self._dicts[name] = self._dicts[self._check_declared(name)], []
        if rows:
            self.add(name, build_rows(rows, self._tables[name].schema.arrow))

    def _drop_repeated(self, name: str, rows: pa.Table) -> pa.Table:
        """Drop rows whose key this run has appended before, and remember the keys of the others."""
        earlier, appended = self._earlier[name], self._appended[name]
        keep = []
        for index, key in enumerate(rows.column(self._tables[name].schema.key).to_pylist()):
            if key in appended:
                continue
            appended.add(key)
            if key not in earlier:
                keep.append(index)
        return rows if len(keep) == rows.num_rows else rows.take(pa.array(keep, pa.int64()))


def _read_commit_seconds() -> float:
    text = os.environ.get(COMMIT_SECONDS_VARIABLE, str(COMMIT_SECONDS))
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a number of seconds",
            where=COMMIT_SECONDS_VARIABLE,
            remedy="set it to 2, for example",
        ) from error
