"""Compares the checkpoints of a log with its entries: a reader opens the table by them alone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlt_data.lake.tables.damage import AddedFile, Damage
from rlt_data.lake.tables.folder import LOG
from rlt_data.lake.tables.log import CHECKPOINT, LogEntry
from rlt_data.lake.tables.table import Table

_COLUMNS = ("add", "txn", "metaData", "protocol")


@dataclass
class LogState:
    """What the entries of a log, up to some version, say of the table."""

    added: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    transactions: dict[str, int] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, entry: LogEntry) -> None:
        """Apply the next entry."""
        self.added |= entry.added
        for path in entry.removed:
            self.added.pop(path, None)
        self.transactions |= entry.transactions
        self.metadata = entry.metadata or self.metadata
        self.protocol = entry.protocol or self.protocol


def find_damaged_checkpoints(table: Table, entries: Sequence[LogEntry]) -> Iterator[Damage]:
    """Find the checkpoints that say something else than the entries, all of which are whole."""
    files: defaultdict[int, list[str]] = defaultdict(list)
    for name in table.folder.list_sizes(LOG):
        if match := CHECKPOINT.fullmatch(name):
            files[int(match[1])].append(name)
    state = LogState()
    for entry in entries:
        state.apply(entry)
        yield from _compare(table, files.pop(entry.version, []), state)
    for version, names in files.items():
        for name in names:
            yield _describe(table, name, f"is of version {version}, which the log does not have")


def agrees_with(state: LogState, current: Mapping[str, AddedFile]) -> bool:
    """Whether an opened version has the files that the entries name, with their sizes and rows."""
    return state.added.keys() == current.keys() and all(
        file.size == state.added[path]["size"]
        and (file.rows is None or file.rows == _read_statistics(state.added[path])[0])
        for path, file in current.items()
    )


def _compare(table: Table, names: Sequence[str], state: LogState) -> Iterator[Damage]:
    if not names:
        return
    found = LogState()
    try:
        for name in names:
            _read_checkpoint(table, name, found)
        stored = _summarize(found)
    except (OSError, pa.ArrowException, ValueError, KeyError, TypeError, AttributeError) as error:
        yield _describe(table, names[0], f"cannot be read: {' '.join(str(error).split())}")
        return
    expected = _summarize(state)
    for part, value in expected.items():
        if stored[part] != value:
            yield _describe(table, names[0], f"has other {part} than the entries of the log")
            return


def _read_checkpoint(table: Table, name: str, state: LogState) -> None:
    with table.folder.open_input(f"{LOG}/{name}") as stream:
        parquet = pq.ParquetFile(stream, page_checksum_verification=True)
        columns = [column for column in _COLUMNS if column in parquet.schema_arrow.names]
        rows = parquet.read(columns).to_pylist()
    for row in rows:
        if add := row.get("add"):
            state.added[add["path"]] = add
        if transaction := row.get("txn"):
            state.transactions[transaction["appId"]] = transaction["version"]
        state.metadata = row.get("metaData") or state.metadata
        state.protocol = row.get("protocol") or state.protocol


def _summarize(state: LogState) -> dict[str, Any]:
    """Return the parts that a checkpoint and the entries must have in common, in one form."""
    metadata = state.metadata
    return {
        "files": {
            path: (action["size"], action["modificationTime"], dict(action["partitionValues"]))
            for path, action in state.added.items()
        },
        "statistics of files": {path: _read_statistics(action) for path, action in state.added.items()},
        "transactions": state.transactions,
        "columns and properties": (
            metadata.get("id"),
            json.loads(metadata.get("schemaString") or "null"),
            list(metadata.get("partitionColumns") or ()),
            dict(metadata.get("configuration") or {}),
        ),
        "protocol": (state.protocol.get("minReaderVersion"), state.protocol.get("minWriterVersion")),
    }


def _read_statistics(action: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return rows, least, greatest and missing run ids of a file, as far as its statistics have them."""
    found = json.loads(action.get("stats") or "{}")
    values = [(found.get(key) or {}).get("run_id") for key in ("minValues", "maxValues", "nullCount")]
    return found.get("numRecords"), *values


def _describe(table: Table, name: str, what: str) -> Damage:
    return Damage(table.name, "log", f"{table.name}/{LOG}/{name}", what)
