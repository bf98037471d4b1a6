"""Opens a Delta table for writing, on first use, and provides its newest snapshot."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from rlt_data.errors import LakeError
from rlt_data.lake.tables.signature import SIGNATURE_PROPERTY, check_columns, sign_schema
from rlt_data.schemas import TableSchema

STORAGE_REMEDY = "check disk space, permissions and credentials; the command resumes when run again"

# The log is lineage, so it is never truncated. Tables accept only appends and compactions. Statistics of
# texts and hashes help no reader and slow down every commit, so only those of run_id are collected.
TABLE_PROPERTIES = {
    "delta.appendOnly": "true",
    "delta.checkpointInterval": "25",
    "delta.dataSkippingStatsColumns": "run_id",
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
}

_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_FRAMES = re.compile(r"^\s*(?:0: |stack backtrace:|backtrace:)", re.MULTILINE | re.IGNORECASE)

# Updating a snapshot becomes slower with each commit; reading it anew from a checkpoint does not.
_REOPEN_EVERY = 25


def describe_failure(error: BaseException) -> str:
    """Describe a storage error in one line, without the colors, arrows and stack frames of its message."""
    lines = [line.strip(" ↳") for line in _COLORS.sub("", _FRAMES.split(str(error), 1)[0]).splitlines()]
    return ": ".join(line for line in lines if line)


def check_clock() -> None:
    """Raise `LakeError` where this machine's clock is before 1970: no commit can have such a time."""
    now = time.time()
    if now < 0:
        raise LakeError(
            f"the clock of this machine is before 1970: {datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M}",
            remedy="set the clock; tables can be read meanwhile, not written",
        )


def open_table(uri: str, storage_options: dict[str, str] | None) -> DeltaTable | None:
    """Open a Delta table; None if it does not exist. Raises `LakeError` if the storage fails."""
    try:
        return DeltaTable(uri, storage_options=storage_options)
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise LakeError(
            f"the table cannot be read: {describe_failure(error)}", where=uri, remedy=STORAGE_REMEDY
        ) from error


class TableWriter:
    """Keeps the snapshot that commits are based on; `before_writing` runs before the first one is taken."""

    def __init__(
        self,
        uri: str,
        schema: TableSchema,
        storage_options: Mapping[str, str] | None,
        before_writing: Callable[[], object] | None,
    ) -> None:
        self._uri = uri
        self._schema = schema
        self._storage_options = dict(storage_options) if storage_options else None
        self._before_writing = before_writing
        self._delta: DeltaTable | None = None
        self._taken = 0

    def take_snapshot(self) -> DeltaTable:
        """Return the newest snapshot, and create the table if it does not exist.

        Raises `LakeError` if the storage fails or the stored columns are not those of the schema.
        """
        self._taken += 1
        if self._delta is None:
            if self._before_writing is not None:
                self._before_writing()
            delta = open_table(self._uri, self._storage_options) or self._create()
            check_columns(delta, self._schema)
            self._delta = delta
        elif self._taken % _REOPEN_EVERY == 0:
            self._delta = open_table(self._uri, self._storage_options) or self._create()
        else:
            try:
                self._delta.update_incremental()
            except (DeltaError, OSError) as error:
                raise LakeError(
                    f"the table cannot be read: {describe_failure(error)}",
                    where=self._uri,
                    remedy=STORAGE_REMEDY,
                ) from error
        return self._delta

    def _create(self) -> DeltaTable:
        try:
            return DeltaTable.create(
                self._uri,
                self._schema.arrow,
                mode="ignore",
                name=self._schema.name,
                description=self._schema.about,
                configuration={**TABLE_PROPERTIES, SIGNATURE_PROPERTY: sign_schema(self._schema)},
                raise_if_key_not_exists=False,
                storage_options=self._storage_options,
            )
        except (DeltaError, OSError) as error:
            # Another process may have created the table, or the reply to our request was lost.
            delta = open_table(self._uri, self._storage_options)
            if delta is None:
                raise LakeError(
                    f"table {self._schema.name} cannot be created: {describe_failure(error)}",
                    where=self._uri,
                    remedy=STORAGE_REMEDY,
                ) from error
            return delta
