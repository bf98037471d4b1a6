"""JSON lines with all columns."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from rlt_data.stages.export.forms.writing import ExportDetails, write_lines


def write(draft: Path, batches: Iterator[pa.Table], details: ExportDetails) -> None:
    """Write one example per line."""
    write_lines(draft, (batch.select(details.schema.names) for batch in batches))
