"""A Hugging Face dataset directory: Parquet shards, a card, and a manifest of its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from rlt_data.stages.export.dataset_card import write_dataset_card
from rlt_data.stages.export.forms.writing import ExportDetails, write_parquet
from rlt_data.stages.export.replacing import write_manifest

SHARD_BYTES = 400 * 2**20


def write(draft: Path, batches: Iterator[pa.Table], details: ExportDetails) -> None:
    """Write data/train-00000-of-0000N.parquet, the card as README.md, and the manifest."""
    _write_shards(draft / "data", batches, details.schema)
    card = write_dataset_card(
        details.lake,
        details.source,
        title=details.title,
        license=details.license,
        examples=details.examples,
        schema=details.schema,
    )
    (draft / "README.md").write_text(card, encoding="utf-8")
    write_manifest(draft)


def _write_shards(folder: Path, batches: Iterator[pa.Table], schema: pa.Schema) -> None:
    """Write shards of about `SHARD_BYTES` in memory; the number of shards is part of their names."""
    folder.mkdir(parents=True)
    written: list[Path] = []
    buffered: list[pa.Table] = []

    def close_shard() -> None:
        path = folder / f"{len(written):05d}.parquet"
        write_parquet(path, iter(buffered), schema)
        written.append(path)
        buffered.clear()

    for batch in batches:
        buffered.append(batch)
        if sum(table.nbytes for table in buffered) >= SHARD_BYTES:
            close_shard()
    if buffered:
        close_shard()
    for index, path in enumerate(written):
        path.rename(folder / f"train-{index:05d}-of-{len(written):05d}.parquet")
