"""One Parquet file with all columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from rlt_data.stages.export.forms.writing import ExportDetails, write_parquet


def write(draft: Path, batches: Iterator[pa.Table], details: ExportDetails) -> None:
    """Write one example per row."""
    write_parquet(draft, batches, details.schema)
