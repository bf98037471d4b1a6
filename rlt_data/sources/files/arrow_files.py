"""Parquet and Arrow IPC files (file, stream, Feather), read in batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlt_data.sources.rows import BadRow, SourceRow, describe_error, refuse_repeated_columns

BATCH_ROWS = 256
_FILE_MAGIC = b"ARROW1"
_REMEDY = "write the file again with another name for one of them"


def read_parquet(path: Path) -> Iterator[SourceRow | BadRow]:
    """Read a Parquet file, row group by row group; a damaged one loses its own rows only.

    Raises `InputError` where two columns have the same name.
    """
    with pq.ParquetFile(path) as file:
        refuse_repeated_columns(file.schema_arrow.names, _REMEDY)
        number = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            end = number + rows
            try:
                for batch in file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group]):
                    yield from read_batch(batch, number)
                    number += batch.num_rows
            except (OSError, pa.ArrowException) as error:
                detail = f"rows {number} to {end - 1} cannot be read: {describe_error(error)}"
                yield BadRow(number, "unreadable", detail)
            number = end


def count_parquet_rows(path: Path) -> int:
    """Return the number of rows, from the footer of the file."""
    return int(pq.read_metadata(path).num_rows)


def read_arrow(path: Path) -> Iterator[SourceRow | BadRow]:
    """Read an Arrow IPC file or stream; Feather is one of them.

    Raises `InputError` where two columns have the same name.
    """
    # Not memory-mapped: a file that is cut while it is read would end the process.
    with pa.OSFile(str(path)) as source:
        if source.size() == 0:
            return
        magic = source.read(len(_FILE_MAGIC))
        source.seek(0)
        number = 0
        for batch in _open_batches(source, is_file=magic == _FILE_MAGIC):
            refuse_repeated_columns(batch.schema.names, _REMEDY)
            for start in range(0, batch.num_rows, BATCH_ROWS):
                part = batch.slice(start, BATCH_ROWS)
                yield from read_batch(part, number)
                number += part.num_rows


def _open_batches(source: Any, *, is_file: bool) -> Iterator[pa.RecordBatch]:
    if is_file:
        reader = pa.ipc.open_file(source)
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)
    else:
        yield from pa.ipc.open_stream(source)


def read_batch(batch: pa.RecordBatch, number: int) -> Iterator[SourceRow | BadRow]:
    """Convert a record batch to rows, numbered from `number`; text that is not UTF-8 makes a `BadRow`."""
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except (UnicodeDecodeError, pa.ArrowException, ValueError, OverflowError):
        for offset in range(batch.num_rows):
            yield _read_one(batch.slice(offset, 1), number + offset)
        return
    for offset, row in enumerate(rows):
        yield SourceRow(number + offset, row)


def _read_one(batch: pa.RecordBatch, number: int) -> SourceRow | BadRow:
    try:
        return SourceRow(number, batch.to_pylist()[0])
    except (UnicodeDecodeError, pa.ArrowException, ValueError, OverflowError) as error:
        reason = "encoding_error" if isinstance(error, UnicodeDecodeError) else "unreadable"
        parts = []
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
                raw = pc.cast(column, pa.large_binary())[0].as_py()
                parts.append(f"{name}: " + ("" if raw is None else raw.decode("utf-8", "backslashreplace")))
        return BadRow(number, reason, f"a value cannot be read: {describe_error(error)}", "\n".join(parts))
