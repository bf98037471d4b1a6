"""Files and directories: every format gives the same rows, damage is named, order is stable."""

from __future__ import annotations

import bz2
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from rlt_data.errors import InputError
from rlt_data.sources.files.directories import find_files
from rlt_data.sources.files.formats import FILE_FORMATS, list_suffixes, recognize_name
from rlt_data.sources.files.parts import open_file
from rlt_data.sources.rows import BadRow, SourceRow

ROWS: list[dict[str, Any]] = [{"question": f"{n} + é?", "answer": str(n + 1)} for n in range(700)]
TABLE = pa.Table.from_pylist(ROWS)


def write_text(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(text.encode()) and None


def write_stream(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=100)


def write_file(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=100)


def compress_zstd(path: Path) -> None:
    with pa.output_stream(str(path), compression="zstd") as sink:
        sink.write(LINES.encode())


LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CSV = "question,answer\n" + "".join(f"{row['question']},{row['answer']}\n" for row in ROWS)
WRITERS: dict[str, Callable[[Path], None]] = {
    "rows.jsonl": write_text(LINES),
    "ROWS.NDJSON": write_text(LINES),
    "rows.json": write_text(json.dumps(ROWS)),
    "rows.csv": write_text(CSV),
    "rows.tsv": write_text(CSV.replace(",", "\t")),
    "rows.parquet": lambda path: pq.write_table(TABLE, path, row_group_size=150),
    "rows.feather": lambda path: pyarrow.feather.write_feather(TABLE, str(path)),
    "file.arrow": write_file,
    "stream.arrow": write_stream,
    "rows.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES.encode())) and None,
    "rows.json.bz2": lambda path: path.write_bytes(bz2.compress(json.dumps(ROWS).encode())) and None,
    "rows.jsonl.zst": compress_zstd,
    "without_suffix": write_text(LINES),
    "parquet_without_suffix": lambda path: pq.write_table(TABLE, path),
}


@pytest.mark.parametrize("name", list(WRITERS))
def test_every_format_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    part = open_file(path)
    assert list(part.read()) == [SourceRow(number, row) for number, row in enumerate(ROWS)]
    assert part.name == name
    assert part.count_rows() in (None, len(ROWS))


def test_every_suffix_belongs_to_one_format_and_every_format_is_tested() -> None:
    suffixes = list_suffixes()
    assert len(set(suffixes)) == len(suffixes)
    tested = {recognized[0] for name in WRITERS if (recognized := recognize_name(Path(name.lower())))}
    assert tested == set(FILE_FORMATS)


def test_the_identity_is_the_content_not_the_path(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        (tmp_path / name).write_text(LINES if name != "c.jsonl" else LINES + "\n", "utf-8")
    a, b, c = (open_file(tmp_path / name).identify() for name in ("a.jsonl", "b.jsonl", "c.jsonl"))
    assert a == b != c


def test_a_file_of_unrecognized_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(InputError, match=r"format of the file cannot be recognized(.|\n)*\.parquet"):
        open_file(path)


@pytest.mark.parametrize(
    "name", ["rows.parquet", "rows.feather", "stream.arrow", "rows.jsonl.gz", "rows.jsonl.zst"]
)
def test_damage_from_the_start_is_an_error_that_names_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"this is something else entirely")
    with pytest.raises(InputError, match=f"cannot be read(.|\n)*{name}"):
        list(open_file(path).read())


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "stream.arrow"])
def test_damage_further_on_keeps_the_rows_before_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    WRITERS[name](path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    *good, last = open_file(path).read()
    assert good == [SourceRow(number, ROWS[number]) for number in range(len(good))]
    assert good
    assert isinstance(last, BadRow)
    assert last.reason in ("unreadable", "malformed_json")


def test_a_damaged_row_group_loses_only_its_own_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(TABLE, path, row_group_size=100, compression="zstd")
    start = pq.read_metadata(path).row_group(3).column(0).data_page_offset
    content = bytearray(path.read_bytes())
    content[start : start + 40] = b"\xff" * 40
    path.write_bytes(content)
    rows = list(open_file(path).read())
    bad = [row for row in rows if isinstance(row, BadRow)]
    assert [(row.number, row.reason) for row in bad] == [(300, "unreadable")]
    assert "rows 300 to 399" in bad[0].detail
    assert [row.number for row in rows if isinstance(row, SourceRow)] == [*range(300), *range(400, 700)]


def test_text_that_is_not_utf_8_loses_only_its_row(tmp_path: Path) -> None:
    raw = pa.array([b"fine", b"bad \xff", b"fine too"], pa.binary())
    column = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    path = tmp_path / "rows.arrow"
    table = pa.table({"question": column, "answer": ["1", "2", "3"]})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    first, bad, last = open_file(path).read()
    assert (first.number, last.number) == (0, 2)
    assert isinstance(bad, BadRow)
    assert (bad.number, bad.reason, bad.content) == (1, "encoding_error", "question: bad \\xff\nanswer: 2")


@pytest.mark.parametrize("name", ["e.jsonl", "e.json", "e.csv", "e.jsonl.gz", "e.arrow"])
def test_empty_files_hold_no_rows(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    assert list(open_file(path).read()) == []


def test_a_directory_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    for name in (
        "b/2.jsonl",
        "b/10.jsonl",
        "a.csv",
        ".hidden.jsonl",
        "README.md",
        "_SUCCESS",
        "dataset_info.json",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    parts, skipped = find_files(tmp_path)
    assert [part.name for part in parts] == ["a.csv", "b/10.jsonl", "b/2.jsonl"]
    assert skipped == ["README.md"]


def test_what_datasets_saved_is_read_in_its_own_order(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    train = datasets.Dataset.from_list(ROWS)
    splits = datasets.DatasetDict({"train": train, "test": train.select(range(5))})
    splits.save_to_disk(tmp_path / "saved", num_shards={"train": 3, "test": 1})
    parts, skipped = find_files(tmp_path / "saved")
    assert [part.name for part in parts] == [
        *(f"train/data-{shard:05d}-of-00003.arrow" for shard in range(3)),
        "test/data-00000-of-00001.arrow",
    ]
    assert skipped == []
    rows = [row.values for part in parts[:3] for row in part.read() if isinstance(row, SourceRow)]
    assert rows == ROWS


def test_a_selection_saved_by_datasets_is_read_as_selected(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).select([5, 3]).save_to_disk(tmp_path / "saved")
    (part,), _ = find_files(tmp_path / "saved")
    assert [row.values for row in part.read() if isinstance(row, SourceRow)] == [ROWS[5], ROWS[3]]


def test_a_header_that_cannot_be_read_is_named_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "twice.csv").write_text("question,question\na,b\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        list(open_file(tmp_path / "twice.csv").read())
    assert caught.value.where == "twice.csv, columns: question, question"


TWICE = pa.table(
    [pa.array(["first"]), pa.array(["second"]), pa.array(["1"])], ["question", "question", "answer"]
)


def write_twice(path: Path, open_writer: Callable[..., Any]) -> None:
    with pa.OSFile(str(path), "wb") as sink, open_writer(sink, TWICE.schema) as writer:
        writer.write_table(TWICE)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("twice.parquet", lambda path: pq.write_table(TWICE, path)),
        ("twice.arrow", lambda path: write_twice(path, pa.ipc.new_file)),
        ("stream.arrow", lambda path: write_twice(path, pa.ipc.new_stream)),
        ("twice.csv", write_text("question,question,answer\nfirst,second,1\n")),
    ],
)
def test_a_file_with_two_columns_of_one_name_is_refused(
    tmp_path: Path, name: str, write: Callable[[Path], None]
) -> None:
    path = tmp_path / name
    write(path)
    with pytest.raises(InputError, match=r"names a column twice: question") as raised:
        list(open_file(path).read())
    assert str(raised.value.where).startswith(name)
