"""A source that is written to while it is read: the run does not finish as if it had read all of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest

from rlt_data.errors import InputError
from rlt_data.lake import Lake
from rlt_data.progress import Reporter, Task
from rlt_data.stages.ingest import IngestConfig, ingest

ROWS = [{"question": f"What is {n} + 1? " + "x" * 100, "answer": str(n + 1)} for n in range(2000)]


class Interfering(Reporter):
    """Calls `interfere` once, when the first rows are done."""

    def __init__(self, interfere: Callable[[], None]) -> None:
        super().__init__(quiet=True)
        self._interfere: Callable[[], None] | None = interfere

    @contextmanager
    def track(self, description: str, total: int | None, unit: str = "rows") -> Iterator[Task]:
        def advance(rows: int, rate: str) -> None:
            if self._interfere is not None:
                self._interfere()
            self._interfere = None

        yield Task(description, total, unit, on_advance=advance)


def write_rows(path: Path) -> None:
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        case ".json":
            path.write_text(json.dumps(ROWS))
        case ".csv":
            path.write_text(
                "question,answer\n" + "".join(f"{row['question']},{row['answer']}\n" for row in ROWS)
            )
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=600, compression="none")
        case ".arrow":
            feather.write_feather(pa.Table.from_pylist(ROWS), path, chunksize=600, compression="uncompressed")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def grow(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b'{"question": "new", "answer": "1"}\n')


def cut_and_restore(path: Path) -> None:
    before, content = path.stat(), path.read_bytes()
    cut(path)
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("change", [cut, grow, cut_and_restore, remove])
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "parquet", "arrow"])
def test_the_run_stays_open_and_is_done_once_the_file_is_whole(
    tmp_path: Path, suffix: str, change: Callable[[Path], None]
) -> None:
    lake, path = Lake(tmp_path / "lake"), tmp_path / f"rows.{suffix}"
    write_rows(path)
    config = IngestConfig(source=str(path))
    with pytest.raises(InputError, match=r"changed while it was read|cannot be read"):
        ingest(lake, config, reporter=Interfering(lambda: change(path)))
    (run,) = lake.runs()
    assert run.status == "failed"
    assert lake.table("rejects").count() == 0, "half a file is not a bad row"

    write_rows(path)
    summary = ingest(lake, config)
    assert (summary.run_id, summary.status) == (run.run_id, "finished")
    assert lake.table("questions").count() == len(ROWS)
    assert lake.table("rejects").count() == 0
