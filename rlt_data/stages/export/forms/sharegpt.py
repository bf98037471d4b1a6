"""JSON lines of conversations with from and value."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from rlt_data.stages.export.forms.writing import ExportDetails, write_lines

SCHEMA = pa.schema(
    [pa.field("conversations", pa.list_(pa.struct([("from", pa.string()), ("value", pa.string())])))]
)
SPEAKERS = {"user-assistant": {}, "human-gpt": {"user": "human", "assistant": "gpt"}}


def write(draft: Path, batches: Iterator[pa.Table], details: ExportDetails) -> None:
    """Write one conversation per line."""
    names: dict[str, str] = SPEAKERS[details.sharegpt_roles]
    write_lines(draft, (_convert(batch, names) for batch in batches))


def _convert(batch: pa.Table, names: dict[str, str]) -> pa.Table:
    conversations = [
        [{"from": names.get(turn["role"], turn["role"]), "value": turn["content"]} for turn in messages]
        for messages in batch.column("messages").to_pylist()
    ]
    return pa.Table.from_pydict({"conversations": conversations}, schema=SCHEMA)
