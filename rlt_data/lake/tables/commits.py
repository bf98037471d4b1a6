"""Exactly-once appends: one Delta commit a chunk, told apart by Delta application transactions.

What delta-rs guarantees, and what is added here. A commit may carry application transactions (id, version).
delta-rs refuses a commit when another one, made since the snapshot that the writer read, carries the same
id; it does not compare with transactions that the snapshot already holds. So each append takes the newest
snapshot, looks its ids up there, and only then writes against that very snapshot: a chunk seen is not
written again, and a chunk that another process commits in between makes the commit fail, after which we
look again. The id of a chunk is its content, so whoever commits it, it counts once.

A fence is the same mechanism for runs: every commit of a run carries the run's id with a number that grows
each time the run is taken up again. Whoever finds a larger number there has lost the run to a newer process.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
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
    """The right of one process to write for one run: the largest `number` seen for `name` holds it."""

    name: str
    number: int


TakeSnapshot = Callable[[], DeltaTable]


class FenceLostError(LakeError):
    """Another process took the run up after this one did, and holds it now."""


@dataclass(frozen=True)
class Commit:
    """The result of an append: the version that holds the chunk, and whether this call wrote it.

    `known` are keys that the table held already, so that their rows were not written again.
    """

    version: int
    written: bool
    known: tuple[str, ...] = ()


def commit_chunk(
    take_snapshot: TakeSnapshot,
    rows: pa.Table,
    *,
    chunk_id: str,
    metadata: Mapping[str, str],
    fence: Fence | None = None,
    guard: KeyGuard | None = None,
) -> Commit:
    """Append `rows` once; under a guard, only those whose key the table does not hold.

    `take_snapshot` returns the newest snapshot of the table each time.
    Raises `LakeError` when the fence is lost or the storage keeps refusing.
    """
    application = _CHUNK_PREFIX + chunk_id

    def write(delta: DeltaTable, transactions: list[Transaction]) -> Commit:
        if guard is None:
            _write_rows(delta, rows, metadata, transactions)
            return Commit(delta.version(), written=True)
        new, known = guard.split(delta, rows)
        if new.num_rows:
            _write_rows(delta, new, metadata, [*transactions, Transaction(_KEYS, 0)])
            # A run under a fence knows its own keys; anybody else relies on the guard for them.
            guard.note_commit(delta, new if fence is None else None)
        return Commit(delta.version(), written=new.num_rows > 0, known=tuple(known))

    return _commit(take_snapshot, application, fence, write)


def commit_fence(take_snapshot: TakeSnapshot, fence: Fence, metadata: Mapping[str, str]) -> Commit:
    """Commit no rows, only the fence: from here on a process with a smaller number cannot commit."""

    def write(delta: DeltaTable, transactions: list[Transaction]) -> Commit:
        delta.create_write_transaction(
            [],
            "append",
            delta.schema(),
            commit_properties=_build_properties(metadata, transactions),
        )
        delta.update_incremental()
        return Commit(delta.version(), written=True)

    return _commit(take_snapshot, None, fence, write)


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
    application: str | None,
    fence: Fence | None,
    write: Callable[[DeltaTable, list[Transaction]], Commit],
) -> Commit:
    """Write against the newest snapshot, after a look at it, until the storage takes the commit."""
    transactions = [] if application is None else [Transaction(application, 0)]
    if fence is not None:
        transactions.append(Transaction(_FENCE_PREFIX + fence.name, fence.number))
    last: CommitFailedError | None = None
    for attempt in range(ATTEMPTS):
        delta = take_snapshot()
        if application is not None and delta.transaction_version(application) is not None:
            return Commit(delta.version(), written=False)
        if fence is not None:
            _check_fence(delta, fence)
        try:
            return write(delta, transactions)
        except CommitFailedError as error:
            last = error
            time.sleep(random.uniform(0.0, min(0.01 * 2**attempt, 0.5)))
        except (DeltaError, OSError) as error:
            raise LakeError(
                f"rows could not be written: {describe_failure(error)}",
                where=delta.table_uri,
                remedy=STORAGE_REMEDY,
            ) from error
    raise LakeError(
        f"the table took no commit in {ATTEMPTS} attempts",
        where=take_snapshot().table_uri,
        remedy=f"run the command again when fewer processes write; the storage said: {last}",
    ) from last


def _check_fence(delta: DeltaTable, fence: Fence) -> None:
    held = delta.transaction_version(_FENCE_PREFIX + fence.name)
    if held is not None and held > fence.number:
        raise FenceLostError(
            f"run {fence.name} was taken up again by a newer process",
            where=delta.table_uri,
            remedy="let that one finish: what this process committed is kept, nothing is written twice",
        )
