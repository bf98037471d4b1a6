"""Runs one query within limits of memory, disk and time, and yields its rows batch by batch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TypeVar

import duckdb
import pyarrow as pa

from rlt_data.errors import LakeError, UsageError

BATCH_ROWS = 1024
_GIB = 2**30
MOST = 1_000_000
"""The largest limit, in GiB or seconds."""
# Polars lets the system restart a wait that a signal interrupts, so Ctrl-C is noticed between waits.
_WAIT_SECONDS = 0.05

T = TypeVar("T")


@dataclass(frozen=True)
class QueryLimits:
    """What one query may use. Rows that were already returned do not count.

    `memory_gib` bounds DuckDB's memory; beyond it, sorts, joins and groups are spilled to the system's
    temporary folder, up to `spill_gib`. `seconds` bounds the time in which DuckDB works; None: no limit.
    """

    memory_gib: float = 4.0
    spill_gib: float = 32.0
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name, least in (("memory_gib", 0.1), ("spill_gib", 0.0), ("seconds", 0.0)):
            value = getattr(self, name)
            if value is not None and not least <= value <= MOST:
                raise UsageError(
                    f"a limit of {value} is out of range", where=name, remedy=f"{least} to {MOST:g}"
                )

    def apply(self, connection: duckdb.DuckDBPyConnection, spill_folder: str) -> None:
        """Set the limits of memory and disk on a connection; what does not fit spills to `spill_folder`."""
        connection.execute(f"SET memory_limit = '{round(self.memory_gib * _GIB)} B'")
        folder = spill_folder.replace("'", "''")
        connection.execute(f"SET temp_directory = '{folder}'")
        connection.execute(f"SET max_temp_directory_size = '{round(self.spill_gib * _GIB)} B'")


class Execution:
    """One query on one connection, run by a thread of its own, so that a limit or Ctrl-C can stop it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, limits: QueryLimits) -> None:
        self._connection = connection
        self._limits = limits
        self._left = limits.seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sql")

    def run(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, which uses the connection. Raises `LakeError` when the time is up."""
        started = time.monotonic()
        future = self._thread.submit(work)
        try:
            while not future.done() and (self._left is None or time.monotonic() - started < self._left):
                wait([future], min(_WAIT_SECONDS, math.inf if self._left is None else self._left))
        finally:  # Also on Ctrl-C.
            in_time = future.done()
            self._stop(future)
        if not in_time:
            raise LakeError(
                f"the query was stopped after {self._limits.seconds:g} seconds",
                where="the query",
                remedy="select less, or allow more time (--timeout, or QueryLimits.seconds)",
            )
        if self._left is not None:
            self._left = max(self._left - (time.monotonic() - started), 0.0)
        return future.result()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _stop(self, future: Future[T]) -> None:
        while not future.done():  # An interruption before DuckDB has begun is lost.
            self._connection.interrupt()
            wait([future], _WAIT_SECONDS)


class QueryStream:
    """The rows of a query: its `schema`, and batches while iterating, each fetched when it is its turn."""

    def __init__(self, schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> None:
        self.schema = schema
        self._batches = batches

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self._batches


def is_out_of_memory(error: Exception) -> bool:
    """Whether a query failed at a limit of memory or disk. Arrow passes on only DuckDB's message."""
    return isinstance(error, duckdb.OutOfMemoryException) or "Out of Memory Error" in str(error)


def explain_out_of_memory(error: Exception) -> LakeError:
    """Convert such an error, without advice for settings that are locked here."""
    return LakeError(
        "the query needs more memory or disk than it may use: " + str(error).splitlines()[0],
        where="the query",
        remedy="select less, or allow more (--memory and --spill, or QueryLimits)",
    )
