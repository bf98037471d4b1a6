"""The writing side of one Delta table: opened when first needed, always at the newest snapshot."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from rlt_data.errors import LakeError
from rlt_data.lake.tables.signature import SIGNATURE_PROPERTY, check_columns, sign_schema
from rlt_data.schemas import TableSchema

STORAGE_REMEDY = "check space, permissions and credentials, then run the command again: it goes on"

# History is lineage here, so the log is never shortened; nothing but an append or a compaction is taken;
# and statistics of text and hashes help no reader, while every writer pays for them at each commit.
TABLE_PROPERTIES = {
    "delta.appendOnly": "true",
    "delta.checkpointInterval": "25",
    "delta.dataSkippingStatsColumns": "run_id",
    "delta.enableExpiredLogCleanup": "false",
    "delta.logRetentionDuration": "interval 36500 days",
}

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_FRAMES = re.compile(r"^\s*(?:0: |stack backtrace:|backtrace:)", re.MULTILINE | re.IGNORECASE)

# An updated snapshot grows slower with every commit; one that is read anew from a checkpoint does not.
_REOPEN_EVERY = 25


def describe_failure(error: Exception) -> str:
    """Put what the storage said into one line: without the colours, arrows and frames of its backtrace."""
    lines = [line.strip(" ↳") for line in _COLOURS.sub("", _FRAMES.split(str(error), 1)[0]).splitlines()]
    return ": ".join(line for line in lines if line)


def open_table(uri: str, storage_options: dict[str, str] | None) -> DeltaTable | None:
    """Open a Delta table; None where there is none. Raises `LakeError` where the storage refuses."""
    try:
        return DeltaTable(uri, storage_options=storage_options)
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        raise LakeError(
            f"the table cannot be read: {describe_failure(error)}", where=uri, remedy=STORAGE_REMEDY
        ) from error


class TableWriter:
    """Holds the snapshot that commits are made against; `before_writing` runs before the first of them."""

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
        """Return the newest snapshot, creating the table where there is none.

        Raises `LakeError` where the storage refuses, or the stored columns are not those of the schema.
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
            delta = open_table(self._uri, self._storage_options)  # Another process may have created it.
            if delta is None:
                raise LakeError(
                    f"table {self._schema.name} cannot be created: {describe_failure(error)}",
                    where=self._uri,
                    remedy=STORAGE_REMEDY,
                ) from error
            return delta
