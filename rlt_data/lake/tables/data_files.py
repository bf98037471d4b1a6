"""Writes the Parquet files of a table, and the record of them that their commit carries.

Parquet readers do not check what they read: DuckDB and Polars ignore page checksums. Each commit therefore
records the SHA-256 and the size of every file that it adds, taken from the bytes as they are written.
Lakes of version 0.1 have no such records.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from rlt_data.lake.tables.folder import HashingOutput, TableFolder

FILES_KEY = "rlt_data.files"
"""Key of the record in a commit's metadata: JSON that maps a file's path to its `sha256` and `size`."""

_GROUP_ROWS = 131_072
_GROUP_BYTES = 64 * 2**20


@dataclass(frozen=True)
class FileRecord:
    """What a commit recorded of a file: the SHA-256 of its bytes, and their number."""

    sha256: str
    size: int


@dataclass(frozen=True)
class DataFile:
    """A Parquet file that is not committed yet; `run_ids` are the least and the greatest."""

    path: str
    record: FileRecord
    rows: int
    run_ids: tuple[str, str]

    def make_add_action(self, *, data_change: bool) -> AddAction:
        """Make the action that adds this file; `data_change` is false where its rows are not new."""
        least, greatest = self.run_ids
        stats = {
            "numRecords": self.rows,
            "minValues": {"run_id": least},
            "maxValues": {"run_id": greatest},
            "nullCount": {"run_id": 0},
        }
        now = int(time.time() * 1000)
        return AddAction(self.path, self.record.size, {}, now, data_change, json.dumps(stats))


def write_data_file(folder: TableFolder, tables: Iterable[pa.Table], *, key: str) -> DataFile:
    """Write the rows of `tables`, which have one schema, to a new Parquet file.

    One table at a time is held, and small ones are joined. Raises `OSError` where the storage fails.
    """
    path = f"part-00000-{uuid.uuid4()}-c000.snappy.parquet"
    output = HashingOutput(folder.open_output(path))
    writer: pq.ParquetWriter | None = None
    rows, least, greatest = 0, "", ""
    try:
        for table in _join_small(tables):
            if writer is None:
                # Statistics of texts help no reader.
                writer = pq.ParquetWriter(
                    output,
                    table.schema,
                    compression="snappy",
                    write_statistics=list(dict.fromkeys([key, "run_id"])),
                    store_schema=False,
                )
            writer.write_table(table)
            ends = pc.min_max(table.column("run_id")).as_py()
            least, greatest = (min(least, ends["min"]) if rows else ends["min"], max(greatest, ends["max"]))
            rows += table.num_rows
        if writer is None:
            raise ValueError("a data file has rows")
        writer.close()
    finally:
        output.close()
    return DataFile(path, FileRecord(output.sha256, output.size), rows, (least, greatest))


def describe_files(files: Iterable[DataFile]) -> dict[str, object]:
    """Return the metadata of a commit that adds `files`: their records, and the number of their rows."""
    files = list(files)
    records = {file.path: {"sha256": file.record.sha256, "size": file.record.size} for file in files}
    metrics = {"num_added_files": len(files), "num_added_rows": sum(file.rows for file in files)}
    return {FILES_KEY: json.dumps(records, sort_keys=True), "operationMetrics": metrics}


def read_file_records(metadata: Mapping[str, object]) -> dict[str, FileRecord]:
    """Read the records in a commit's metadata; empty where it has none.

    Raises `ValueError`, `KeyError` or `TypeError` where they are damaged.
    """
    text = metadata.get(FILES_KEY)
    if text is None:
        return {}
    found = json.loads(str(text))
    return {str(path): FileRecord(str(value["sha256"]), int(value["size"])) for path, value in found.items()}


def _join_small(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        if table.num_rows == 0:
            continue
        waiting.append(table)
        rows, size = rows + table.num_rows, size + table.nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.concat_tables(waiting)
