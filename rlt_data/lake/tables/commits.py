"""Exactly-once appends: one Delta commit per chunk, identified by a Delta application transaction.

A commit may carry application transactions, each an id with a number. delta-rs refuses a commit when another
one with the same id was made after the snapshot that the writer read; it does not look into that snapshot.
Each append therefore takes the newest snapshot, looks its chunk up there, and writes against that very
snapshot only if the chunk is absent. When another process commits the chunk in between, the commit is refused
and the append looks again. The id of a chunk is a hash of its content, so that it is stored once, whichever
process commits it.
A repair that removes a file releases its chunks, so that they can be written again.

The number of a chunk's transaction is random. It shows whether a chunk in the log was written by this call:
when the storage carries out a commit and its reply is lost, the call finds its own number in the log.

A fence uses the same mechanism for runs. Every commit of a run carries the run's id with a number that grows
each time the run is resumed. A process that finds a larger number has lost the run to a newer process.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction, Transaction

from rlt_data.errors import LakeError
from rlt_data.lake.tables.data_files import DataFile, describe_files, write_data_file
from rlt_data.lake.tables.folder import TableFolder
from rlt_data.lake.tables.keys import KeyGuard
from rlt_data.lake.tables.writer import STORAGE_REMEDY, describe_failure

ATTEMPTS = 60
_CHUNK_PREFIX = "rlt-data/chunk/"
_FENCE_PREFIX = "rlt-data/run/"
_KEYS = "rlt-data/keys"
_REPAIRS = "rlt-data/repairs"
_RELEASED = -1


@dataclass(frozen=True)
class Fence:
    """The right of one process to write for the run `name`: the process with the largest `number` has it."""

    name: str
    number: int


TakeSnapshot = Callable[[], DeltaTable]


class FenceLostError(LakeError):
    """Another process resumed the run after this one started."""


@dataclass(frozen=True)
class Commit:
    """The result of an append: a version that holds the chunk, and whether this call wrote it.

    `skipped` are the keys of rows that were not written because the table had them already.
    """

    version: int
    written: bool
    skipped: tuple[str, ...] = ()


def commit_chunk(
    take_snapshot: TakeSnapshot,
    folder: TableFolder,
    rows: pa.Table,
    *,
    key: str,
    chunk_id: str,
    metadata: Mapping[str, str],
    fence: Fence | None = None,
    guard: KeyGuard | None = None,
) -> Commit:
    """Append `rows` once; under a guard, only those whose key is not in the table.

    `take_snapshot` returns the newest snapshot of the table, whose files are in `folder`, at each call. `key`
    is the name of the key column. Raises `LakeError` when the fence is lost or the storage keeps refusing.
    """
    number = secrets.randbits(62)
    skipped: tuple[str, ...] = ()
    used: set[str] = set()
    prepared: tuple[tuple[str, ...], DataFile] | None = None

    def find(delta: DeltaTable) -> Commit | None:
        if any(delta.transaction_version(application) == number for application in used):
            return Commit(delta.version(), True, skipped)
        if delta.transaction_version(_name_chunk(delta, chunk_id)) in (None, _RELEASED):
            return None
        return Commit(delta.version(), False)

    def write(delta: DeltaTable, transactions: list[Transaction]) -> Commit:
        nonlocal skipped, prepared
        application = _name_chunk(delta, chunk_id)
        used.add(application)
        transactions = [Transaction(application, number), *transactions]
        new, before = rows, delta.version()
        if guard is not None:
            new, existing = guard.split(delta, rows)
            skipped = tuple(existing)
            transactions.append(Transaction(_KEYS, 0))
        if new.num_rows:
            # A commit that was refused is tried again with the file that it wrote.
            if prepared is None or prepared[0] != skipped:
                prepared = skipped, write_data_file(folder, [new], key=key)
            commit_files(delta, [prepared[1]], [], metadata, transactions)
            if guard is not None:
                # A run under a fence keeps its own keys; any other writer relies on the guard for them.
                guard.note_commit(before, delta.version(), new if fence is None else None)
        return Commit(delta.version(), new.num_rows > 0, skipped)

    return _commit(take_snapshot, fence, find, write)


def commit_files(
    delta: DeltaTable,
    added: Sequence[DataFile],
    removed: Sequence[str],
    metadata: Mapping[str, str],
    transactions: Sequence[Transaction] = (),
) -> None:
    """Commit files against a snapshot, which then is the newest one; the commit records what it adds.

    With `removed`, the paths of files to remove, no row is new: the files are merged, or set aside.
    """
    now = int(time.time() * 1000)
    actions: list[AddAction | RemoveAction] = [
        *(file.make_add_action(data_change=not removed) for file in added),
        *(RemoveAction(path, data_change=False, deletion_timestamp=now) for path in removed),
    ]
    details = describe_files(added) if added else {}
    delta.create_write_transaction(
        actions,
        "append",
        delta.schema(),
        commit_properties=_build_properties({**metadata, **details}, transactions),
    )
    delta.update_incremental()


def commit_repair(
    delta: DeltaTable,
    removed: Sequence[str],
    metadata: Mapping[str, str],
    transactions: Iterable[str] | None = (),
) -> None:
    """Commit the removal of damaged files, and release their chunks, so that they can be appended again.

    `transactions` are the ids of the transactions of the commits that wrote their rows. If it is not known
    which these are (None), all chunks of the table are released.
    """
    if transactions is None:
        released = [Transaction(_REPAIRS, (delta.transaction_version(_REPAIRS) or 0) + 1)]
    else:
        chunks = [name for name in transactions if name.startswith(_CHUNK_PREFIX)]
        released = [Transaction(name, _RELEASED) for name in chunks]
    commit_files(delta, [], removed, metadata, released)


def _name_chunk(delta: DeltaTable, chunk_id: str) -> str:
    repairs = delta.transaction_version(_REPAIRS)
    return _CHUNK_PREFIX + chunk_id + (f"/{repairs}" if repairs else "")


def commit_fence(take_snapshot: TakeSnapshot, fence: Fence, metadata: Mapping[str, str]) -> Commit:
    """Commit only the fence, without rows: a process with a smaller number can no longer commit."""

    def find(delta: DeltaTable) -> Commit | None:
        if get_fence_number(delta, fence.name) != fence.number:
            return None
        return Commit(delta.version(), written=True)  # A number is given to one process only.

    def write(delta: DeltaTable, transactions: list[Transaction]) -> Commit:
        commit_files(delta, [], [], metadata, transactions)
        return Commit(delta.version(), written=True)

    return _commit(take_snapshot, fence, find, write)


def _build_properties(
    metadata: Mapping[str, object], transactions: Sequence[Transaction]
) -> CommitProperties:
    return CommitProperties(
        custom_metadata=dict(metadata), app_transactions=list(transactions), max_commit_retries=20
    )


def _commit(
    take_snapshot: TakeSnapshot,
    fence: Fence | None,
    find: Callable[[DeltaTable], Commit | None],
    write: Callable[[DeltaTable, list[Transaction]], Commit],
) -> Commit:
    """Write against the newest snapshot, unless `find` finds the commit there, until the storage accepts."""
    transactions = [] if fence is None else [Transaction(_FENCE_PREFIX + fence.name, fence.number)]
    last: CommitFailedError | None = None
    for attempt in range(ATTEMPTS):
        delta = take_snapshot()
        found = find(delta)
        if found is not None:
            return found
        if fence is not None:
            _check_fence(delta, fence)
        try:
            return write(delta, transactions)
        except CommitFailedError as error:
            last = error
            time.sleep(random.uniform(0.0, min(0.01 * 2**attempt, 0.5)))
        except (DeltaError, OSError) as error:
            # The storage may have carried the commit out although its reply was lost.
            with suppress(LakeError):
                found = find(take_snapshot())
            if found is not None:
                return found
            raise LakeError(
                f"rows could not be written: {describe_failure(error)}",
                where=delta.table_uri,
                remedy=STORAGE_REMEDY,
            ) from error
    raise LakeError(
        f"the storage refused the commit in {ATTEMPTS} attempts",
        where=take_snapshot().table_uri,
        remedy=f"run the command again when fewer processes write; the last refusal was: {last}",
    ) from last


def _check_fence(delta: DeltaTable, fence: Fence) -> None:
    held = get_fence_number(delta, fence.name)
    if held is not None and held > fence.number:
        raise FenceLostError(
            f"run {fence.name} was resumed by a newer process",
            where=delta.table_uri,
            remedy="let that process finish: the rows that this one committed are kept and not written again",
        )


def get_fence_number(delta: DeltaTable, name: str) -> int | None:
    """Return the largest number under which the run `name` has committed; None if it has not."""
    return delta.transaction_version(_FENCE_PREFIX + name)
