"""Reads the entries of a Delta log one by one, and finds those that are missing, empty or torn."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlt_data.lake.tables.actions import find_action_fault
from rlt_data.lake.tables.damage import AddedFile, Damage
from rlt_data.lake.tables.data_files import FileRecord, read_file_records
from rlt_data.lake.tables.folder import LOG, TableFolder

STAGE_KEY = "rlt_data.stage"
REPAIR = "repair"
_ENTRY = re.compile(r"(\d{20})\.json")
CHECKPOINT = re.compile(r"(\d{20})\.checkpoint\.(?:.*\.)?parquet")
"""The name of a file of a checkpoint, with its version."""


@dataclass(frozen=True)
class LogEntry:
    """One commit: its information, the files that it added and removed, and what it recorded of the former.

    `transactions` are the numbers of its application transactions by id; `metadata` and `protocol` describe
    the table from this commit on.
    `fault` says what is wrong with the entry; the other fields then hold what could be read.
    """

    version: int
    info: Mapping[str, Any] = field(default_factory=dict)
    added: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    removed: tuple[str, ...] = ()
    records: Mapping[str, FileRecord] = field(default_factory=dict)
    transactions: Mapping[str, int] = field(default_factory=dict)
    metadata: Mapping[str, Any] | None = None
    protocol: Mapping[str, Any] | None = None
    fault: str | None = None

    @property
    def is_repair(self) -> bool:
        """Whether a repair made this commit."""
        return self.info.get(STAGE_KEY) == REPAIR

    def list_files(self) -> list[AddedFile]:
        """List the files that this commit added."""
        files = []
        for path, action in self.added.items():
            rows, run_id = _read_statistics(action.get("stats"))
            files.append(AddedFile(path, int(action["size"]), rows, run_id))
        return files


def name_entry(version: int) -> str:
    """Return the path of a log entry within its table's folder."""
    return f"{LOG}/{version:020}.json"


def find_log_gaps(table: str, folder: TableFolder, newest: int | None = None) -> Iterator[Damage]:
    """Find entries of a log that are missing or empty, up to version `newest`, without reading any."""
    sizes = list_entries(folder)
    end = max(sizes, default=-1)
    for version in range((end if newest is None else min(end, newest)) + 1):
        if not sizes.get(version):
            what = "is empty" if version in sizes else "is missing"
            yield Damage(table, "log", f"{table}/{name_entry(version)}", what)


def list_entries(folder: TableFolder) -> dict[int, int]:
    """Return the size of each log entry by version."""
    found = ((_ENTRY.fullmatch(name), size) for name, size in folder.list_sizes(LOG).items())
    return {int(match.group(1)): size for match, size in found if match}


def read_log(folder: TableFolder, start: int = 0) -> Iterator[LogEntry]:
    """Read the entries of all versions from `start` to the newest, missing ones included."""
    sizes = list_entries(folder)
    for version in range(start, max(sizes, default=-1) + 1):
        if version not in sizes:
            yield LogEntry(version, fault="is missing")
        else:
            yield read_entry(version, folder.read(name_entry(version)))


def find_log_faults(table: str, folder: TableFolder) -> Iterator[Damage]:
    """Find the gaps of a log, and the torn ones of its entries since the newest checkpoint."""
    yield from find_log_gaps(table, folder)
    names = folder.list_sizes(LOG)
    start = max((int(match[1]) for name in names if (match := CHECKPOINT.fullmatch(name))), default=0)
    sizes = list_entries(folder)
    for entry in read_log(folder, start):
        if entry.fault is not None and sizes.get(entry.version):
            yield Damage(table, "log", f"{table}/{name_entry(entry.version)}", entry.fault)


def read_entry(version: int, content: bytes) -> LogEntry:
    """Parse one entry, and say what is wrong with it."""
    info: dict[str, Any] = {}
    added: dict[str, Mapping[str, Any]] = {}
    removed: list[str] = []
    transactions: dict[str, int] = {}
    described: dict[str, Mapping[str, Any]] = {}
    fault = None if content.strip() else "is empty"
    try:
        for line in content.splitlines():
            action = json.loads(line)
            if (wrong := find_action_fault(action)) is not None:
                fault = fault or f"is torn: {wrong}"
                continue
            described |= {kind: action[kind] for kind in ("protocol", "metaData") if kind in action}
            if "commitInfo" in action:
                info = dict(action["commitInfo"])
            if "add" in action:
                added[str(action["add"]["path"])] = dict(action["add"])
            if "remove" in action:
                removed.append(str(action["remove"]["path"]))
            if "txn" in action:
                transactions[str(action["txn"]["appId"])] = int(action["txn"]["version"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        fault = f"is torn: {error}"
    records: dict[str, FileRecord] = {}
    try:
        records = read_file_records(info)
    except (ValueError, TypeError, KeyError, AttributeError):
        fault = fault or "is torn: its record of files cannot be read"
    if fault is None:
        fault = _find_fault(version, set(described), info, added, records)
    metadata, protocol = described.get("metaData"), described.get("protocol")
    return LogEntry(version, info, added, tuple(removed), records, transactions, metadata, protocol, fault)


def _find_fault(
    version: int,
    kinds: set[str],
    info: Mapping[str, Any],
    added: Mapping[str, Mapping[str, Any]],
    records: Mapping[str, FileRecord],
) -> str | None:
    if version == 0 and not {"protocol", "metaData"} <= kinds:
        return "is torn: it does not describe the table"
    if not all(isinstance(action.get("size"), int) for action in added.values()):
        return "is torn: it does not say how large its files are"
    metrics = info.get("operationMetrics")
    expected = metrics.get("num_added_files") if isinstance(metrics, dict) else None
    if records.keys() - added.keys() or (isinstance(expected, int) and expected > len(added)):
        return "is torn: it does not name all files that it added"
    return None


def _read_statistics(text: object) -> tuple[int | None, str | None]:
    """Return the number of rows and, if all are of one run, its id."""
    try:
        found = json.loads(str(text))
        least, greatest = found["minValues"]["run_id"], found["maxValues"]["run_id"]
        return int(found["numRecords"]), least if least == greatest else None
    except (ValueError, TypeError, KeyError):
        return None, None


def find_transactions(entries: Sequence[LogEntry], paths: Iterable[str]) -> set[str] | None:
    """Find the transactions of the commits that wrote the rows of files, also of files that were merged.

    None where an entry that it takes is missing.
    """
    writers = _find_writers(entries, paths)
    if None in writers:
        return None
    return {transaction for entry in writers if entry is not None for transaction in entry.transactions}


def find_lost_commits(entries: Sequence[LogEntry]) -> set[int]:
    """Find the versions whose rows repairs have set aside, also the rows of files that were merged."""
    paths = [path for entry in entries if entry.is_repair for path in entry.removed]
    return {entry.version for entry in _find_writers(entries, paths) if entry is not None}


def _find_writers(entries: Sequence[LogEntry], paths: Iterable[str]) -> list[LogEntry | None]:
    """Find the commits that wrote files, and those whose files they merged; None for each that is missing."""
    writers = {path: entry for entry in entries for path in entry.added}
    found: dict[int | None, LogEntry | None] = {}
    seen: set[str] = set()
    waiting = list(paths)
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            entry = writers.get(path)
            found[None if entry is None else entry.version] = entry
            waiting += () if entry is None else entry.removed
    return list(found.values())
