"""What the forms share: the signature of their writers, and files that several of them write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from rlt_data.lake import Lake, RunRecord


@dataclass(frozen=True)
class ExportDetails:
    """What a form may need besides the examples: the run that made them, and the options of the export."""

    lake: Lake
    source: RunRecord
    schema: pa.Schema
    examples: int
    title: str
    license: str | None
    sharegpt_roles: Literal["user-assistant", "human-gpt"]


WriteForm = Callable[[Path, Iterator[pa.Table], ExportDetails], None]
"""Writes batches (the columns of `schema`, and `messages`) to a new file or directory."""


def write_lines(path: Path, batches: Iterator[pa.Table]) -> None:
    """Write each row as a line with one JSON object."""
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for batch in batches:
            for row in batch.to_pylist():
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_parquet(path: Path, batches: Iterator[pa.Table], schema: pa.Schema) -> None:
    """Write the columns of `schema` to one Parquet file."""
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_table(batch.select(schema.names))
