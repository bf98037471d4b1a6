"""Exactly-once appends: one Delta commit per chunk, identified by a Delta application transaction.

A commit may carry application transactions, each an id with a number. delta-rs refuses a commit when another
one with the same id was made after the snapshot that the writer read; it does not look into that snapshot.
Each append therefore takes the newest snapshot, looks its chunk up there, and writes against that very
snapshot only if the chunk is absent. When another process commits the chunk in between, the commit is refused
and the append looks again. The id of a chunk is a hash of its content: whoever commits it, it is stored once.

The number of a chunk's transaction is random. It shows whether a chunk in the log was written by this call:
when the storage carries out a commit and its reply is lost, the call finds its own number in the log.

A fence uses the same mechanism for runs. Every commit of a run carries the run's id with a number that grows
each time the run is resumed. A process that finds a larger number has lost the run to a newer process.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import Transaction

from rlt_data.errors import LakeError
from rlt_data.lake.tables.keys import KeyGuard
from rlt_data.lake.tables.writer import STORAGE_REMEDY, describe_failure

ATTEMPTS = 60
_CHUNK_PREFIX = "rlt-data/chunk/"
_FENCE_PREFIX = "rlt-data/run/"
_KEYS = "rlt-data/keys"


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
    rows: pa.Table,
    *,
    chunk_id: str,
    metadata: Mapping[str, str],
    fence: Fence | None = None,
    guard: KeyGuard | None = None,
) -> Commit:
    """Append `rows` once; under a guard, only those whose key is not in the table.

    `take_snapshot` returns the newest snapshot of the table at each call.
    Raises `LakeError` when the fence is lost or the storage keeps refusing.
    """
    application = _CHUNK_PREFIX + chunk_id
    number = secrets.randbits(62)
    skipped: tuple[str, ...] = ()

    def find(delta: DeltaTable) -> Commit | None:
        held = delta.transaction_version(application)
        if held is None:
            return None
        written = held == number
        return Commit(delta.version(), written, skipped if written else ())

    def write(delta: DeltaTable, transactions: list[Transaction]) -> Commit:
        nonlocal skipped
        transactions = [Transaction(application, number), *transactions]
        if guard is None:
            _write_rows(delta, rows, metadata, transactions)
            return Commit(delta.version(), written=True)
        new, existing = guard.split(delta, rows)
        skipped = tuple(existing)
        if new.num_rows:
            _write_rows(delta, new, metadata, [*transactions, Transaction(_KEYS, 0)])
            # A run under a fence keeps its own keys; any other writer relies on the guard for them.
            guard.note_commit(delta, new if fence is None else None)
        return Commit(delta.version(), new.num_rows > 0, skipped)

    return _commit(take_snapshot, fence, find, write)


def commit_fence(take_snapshot: TakeSnapshot, fence: Fence, metadata: Mapping[str, str]) -> Commit:
    """Commit only the fence, without rows: a process with a smaller number can no longer commit."""

    def find(delta: DeltaTable) -> Commit | None:
        if _get_fence_number(delta, fence) != fence.number:
            return None
        return Commit(delta.version(), written=True)  # A number is given to one process only.

    def write(delta: DeltaTable, transactions: list[Transaction]) -> Commit:
        delta.create_write_transaction(
            [],
            "append",
            delta.schema(),
            commit_properties=_build_properties(metadata, transactions),
        )
        delta.update_incremental()
        return Commit(delta.version(), written=True)

    return _commit(take_snapshot, fence, find, write)


def _write_rows(
    delta: DeltaTable, rows: pa.Table, metadata: Mapping[str, str], transactions: list[Transaction]
) -> None:
    write_deltalake(delta, rows, mode="append", commit_properties=_build_properties(metadata, transactions))


def _build_properties(metadata: Mapping[str, str], transactions: list[Transaction]) -> CommitProperties:
    return CommitProperties(
        custom_metadata=dict(metadata), app_transactions=transactions, max_commit_retries=20
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
    held = _get_fence_number(delta, fence)
    if held is not None and held > fence.number:
        raise FenceLostError(
            f"run {fence.name} was resumed by a newer process",
            where=delta.table_uri,
            remedy="let that process finish: the rows that this one committed are kept and not written again",
        )


def _get_fence_number(delta: DeltaTable, fence: Fence) -> int | None:
    return delta.transaction_version(_FENCE_PREFIX + fence.name)
