"""The file formats, each declared once: its suffixes, the first bytes of its files, and its reader.

A new format is a function that yields rows and an entry in `FILE_FORMATS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from rlt_data.sources.files.arrow_files import count_parquet_rows, read_arrow, read_parquet
from rlt_data.sources.files.csv_files import read_csv
from rlt_data.sources.files.json_documents import read_json
from rlt_data.sources.files.json_lines import read_json_lines
from rlt_data.sources.rows import BadRow, SourceRow

COMPRESSIONS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2"}
"""Compressions of text formats, by suffix, under Arrow's names."""

# Where a compressed file is damaged, all of the buffer that is being read is lost, so buffers are small.
_BUFFER_BYTES = 8192


@dataclass(frozen=True)
class DataFile:
    """A file on disk and its compression, under Arrow's name."""

    path: Path
    compression: str | None = None

    def open(self) -> BinaryIO:
        """Open the file as a stream of decompressed bytes."""
        if self.compression is None:
            return self.path.open("rb")
        # Arrow decompresses, and BufferedReader adds the lines that Arrow's stream does not have.
        return BufferedReader(pa.input_stream(str(self.path), compression=self.compression), _BUFFER_BYTES)


Rows = Iterator[SourceRow | BadRow]


@dataclass(frozen=True)
class FileFormat:
    """One file format. `starts` are first bytes that identify it, after white space where it is text.

    Only a text format may be compressed as a whole. `count_rows` is None where counting means reading.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[DataFile], Rows]
    text: bool = True
    starts: tuple[bytes, ...] = ()
    count_rows: Callable[[Path], int] | None = None


def _read_lines(file: DataFile) -> Rows:
    with file.open() as stream:
        yield from read_json_lines(stream)


def _read_comma_separated(file: DataFile) -> Rows:
    with file.open() as stream:
        yield from read_csv(stream)


def _read_tab_separated(file: DataFile) -> Rows:
    with file.open() as stream:
        yield from read_csv(stream, "\t")


FILE_FORMATS: tuple[FileFormat, ...] = (
    FileFormat("jsonl", (".jsonl", ".ndjson", ".jsonlines"), _read_lines),
    FileFormat("json", (".json",), lambda file: read_json(file.open), starts=(b"{", b"[")),
    FileFormat("csv", (".csv",), _read_comma_separated),
    FileFormat("tsv", (".tsv",), _read_tab_separated),
    FileFormat(
        "parquet",
        (".parquet", ".pq"),
        lambda file: read_parquet(file.path),
        text=False,
        starts=(b"PAR1",),
        count_rows=count_parquet_rows,
    ),
    FileFormat(
        "arrow",
        (".arrow", ".arrows", ".feather", ".ipc"),
        lambda file: read_arrow(file.path),
        text=False,
        starts=(b"ARROW1",),
    ),
)
"""Every file format that can be read."""


def find_format(name: str) -> FileFormat:
    """Find a format by its name, one of `FILE_FORMATS`."""
    return next(format for format in FILE_FORMATS if format.name == name)


def list_suffixes() -> list[str]:
    """List the suffixes of all formats, without those of compressions."""
    return [suffix for format in FILE_FORMATS for suffix in format.suffixes]


def recognize_name(path: Path) -> tuple[FileFormat, str | None] | None:
    """Return format and compression from the suffixes of a file's name; None where they name no format."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    inner = suffixes[-2:-1] if compression else suffixes[-1:]
    for format in FILE_FORMATS:
        if inner and inner[0] in format.suffixes and (format.text or compression is None):
            return format, compression
    return None


def recognize_start(start: bytes) -> FileFormat | None:
    """Return the format from the first bytes of a file, without a byte order mark; None where none fits."""
    for format in FILE_FORMATS:
        if (start.lstrip() if format.text else start).startswith(format.starts):
            return format
    return None
