"""Files on disk as parts of a source: which there are, how each is written, and reading one."""

from __future__ import annotations

import codecs
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from rlt_data.errors import InputError
from rlt_data.hashing import hash_file
from rlt_data.sources.files.arrow_files import count_parquet_rows, read_arrow, read_parquet
from rlt_data.sources.files.csv_files import read_csv
from rlt_data.sources.files.json_documents import read_json
from rlt_data.sources.files.json_lines import read_json_lines
from rlt_data.sources.rows import BadRow, SourceRow, describe_error

FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
}
COMPRESSIONS = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2"}
"""Compressions of text formats, by suffix."""

_METADATA_FILES = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
_READ_ERRORS = (OSError, EOFError, zlib.error, pa.ArrowException)


@dataclass(frozen=True)
class FilePart:
    """One file. `name` is its path relative to what the user named, with forward slashes."""

    path: Path
    name: str
    format: str
    compression: str | None = None

    def count_rows(self) -> int | None:
        """Return the number of rows where the file states it."""
        try:
            return count_parquet_rows(self.path) if self.format == "parquet" else None
        except _READ_ERRORS:
            return None

    def identify(self) -> str:
        """Return the content hash of the file. Raises `InputError` where it cannot be read."""
        try:
            return hash_file(self.path)
        except OSError as error:
            raise InputError(f"the file cannot be read: {error.strerror}", where=self.name) from error

    def read(self) -> Iterator[SourceRow | BadRow]:
        """Read the rows in order. Raises `InputError` where not even the first can be read."""
        number: int | None = None
        try:
            for row in self._open_rows():
                number = row.number
                yield row
        except _READ_ERRORS as error:
            message = describe_error(error)
            if number is None:
                raise InputError(
                    f"the file cannot be read as {self.format}: {message}", where=self.name
                ) from error
            yield BadRow(
                number + 1, "unreadable", f"from row {number + 1} on the file cannot be read: {message}"
            )
        except InputError as error:
            where = f"{self.name}, {error.where}" if error.where else self.name
            raise InputError(error.what, where=where, remedy=error.remedy) from error

    def _open_rows(self) -> Iterator[SourceRow | BadRow]:
        match self.format:
            case "parquet":
                yield from read_parquet(self.path)
            case "arrow":
                yield from read_arrow(self.path)
            case "json":
                yield from read_json(self._open_stream)
            case "jsonl":
                with self._open_stream() as stream:
                    yield from read_json_lines(stream)
            case _:
                with self._open_stream() as stream:
                    yield from read_csv(stream, "\t" if self.format == "tsv" else None)

    def _open_stream(self) -> BinaryIO:
        if self.compression is None:
            return self.path.open("rb")
        # Arrow's stream decompresses; it has no lines of its own. Where it is damaged, the whole piece that
        # is being read is lost, so pieces are small.
        return BufferedReader(pa.input_stream(str(self.path), compression=self.compression), 8192)


def name_format(path: Path) -> tuple[str, str | None] | None:
    """Return format and compression by the name's suffixes, or None where they name no data."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    compression = COMPRESSIONS.get(suffixes[-1]) if suffixes else None
    inner = suffixes[-2:-1] if compression else suffixes[-1:]
    format_name = FORMATS.get(inner[0]) if inner else None
    if format_name is None or (compression and format_name in ("parquet", "arrow")):
        return None
    return format_name, compression


def open_file(path: Path) -> FilePart:
    """Open one file, by its suffix or else by how it begins. Raises `InputError` where neither tells."""
    known = name_format(path) or _sniff_format(path)
    if known is None:
        raise InputError(
            "it cannot be told how this file is written",
            where=str(path),
            remedy="give it one of the suffixes "
            + ", ".join(FORMATS)
            + " (text also with .gz, .zst or .bz2)",
        )
    return FilePart(path, path.name, *known)


def _sniff_format(path: Path) -> tuple[str, str | None] | None:
    try:
        with path.open("rb") as stream:
            start = stream.read(4096).removeprefix(codecs.BOM_UTF8).lstrip()
    except OSError as error:
        raise InputError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
    if start.startswith(b"PAR1"):
        return "parquet", None
    if start.startswith(b"ARROW1"):
        return "arrow", None
    return ("json", None) if start.startswith((b"{", b"[")) else None


def find_files(directory: Path) -> tuple[list[FilePart], list[str]]:
    """List the data files below a directory in the order of their names, and the names of other files.

    A directory that `datasets` saved (`state.json`) counts with the files that it lists, in its order.
    """
    parts: list[FilePart] = []
    skipped: list[str] = []
    _collect(directory, directory, parts, skipped)
    return parts, skipped


def _collect(root: Path, directory: Path, parts: list[FilePart], skipped: list[str]) -> None:
    listed = _read_list(directory / "state.json", "_data_files")
    if listed is not None:
        for entry in listed:
            path = directory / str(entry.get("filename"))
            parts.append(FilePart(path, path.relative_to(root).as_posix(), "arrow"))
        return
    splits = _read_list(directory / "dataset_dict.json", "splits")
    if splits is not None:
        for split in splits:
            _collect(root, directory / str(split), parts, skipped)
        return
    for path in sorted(directory.iterdir(), key=lambda entry: entry.name):
        if path.name.startswith((".", "_")) or path.name in _METADATA_FILES:
            continue
        name = path.relative_to(root).as_posix()
        if path.is_dir() and path.is_symlink():
            skipped.append(name)  # it may lead back up
        elif path.is_dir():
            _collect(root, path, parts, skipped)
        elif known := name_format(path):
            parts.append(FilePart(path, name, *known))
        else:
            skipped.append(name)


def _read_list(path: Path, name: str) -> list[Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, list) else None
