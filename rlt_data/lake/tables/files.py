"""Lists the Parquet files of a table's version and scans them with Polars."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl
from deltalake import DeltaTable

from rlt_data.lake.tables.conform import build_empty_frame
from rlt_data.schemas import TableSchema


def list_files(delta: DeltaTable, uri: str, *, local: bool) -> list[str]:
    """List the data files of a version: paths on this machine, or URIs.

    delta-rs percent-encodes the path of a local file. These tables have no partitions, so the file's name
    suffices to build the path.
    """
    files = sorted(delta.file_uris())
    return [f"{uri}/{file.rpartition('/')[2]}" for file in files] if local else files


def scan_files(
    files: list[str], schema: TableSchema, storage_options: Mapping[str, str] | None
) -> pl.LazyFrame:
    """Scan Parquet files with the columns of `schema`; columns that files of an older lake lack are null."""
    empty = build_empty_frame(schema)
    if not files:
        return empty.lazy()
    return pl.scan_parquet(
        files,
        schema=empty.schema,
        glob=False,
        missing_columns="insert",
        storage_options=dict(storage_options) if storage_options else None,
    )
