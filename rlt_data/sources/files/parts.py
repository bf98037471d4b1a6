"""One data file as a part of a source."""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from rlt_data.errors import InputError
from rlt_data.hashing import hash_file
from rlt_data.sources.files.formats import (
    DataFile,
    FileFormat,
    list_suffixes,
    recognize_name,
    recognize_start,
)
from rlt_data.sources.rows import BadRow, SourceRow, describe_error

_READ_ERRORS = (OSError, EOFError, zlib.error, pa.ArrowException)
_START_BYTES = 4096


@dataclass(frozen=True)
class FilePart:
    """One file. `name` is its path relative to the source that the user named, with forward slashes."""

    path: Path
    name: str
    format: FileFormat
    compression: str | None = None

    layout: ClassVar[str | None] = None
    dataset: ClassVar[str | None] = None

    def count_rows(self) -> int | None:
        """Return the number of rows where the file states it."""
        if self.format.count_rows is None:
            return None
        try:
            return self.format.count_rows(self.path)
        except _READ_ERRORS:
            return None

    def identify(self) -> str:
        """Return the content hash of the file. Raises `InputError` where it cannot be read."""
        try:
            return hash_file(self.path)
        except OSError as error:
            raise InputError(f"the file cannot be read: {error.strerror}", where=self.name) from error

    def take_stamp(self) -> tuple[int, ...]:
        """Return the file's inode, size and times. Raises `InputError` where it cannot be found."""
        try:
            state = self.path.stat()
        except OSError as error:
            raise InputError(f"the file cannot be read: {error.strerror}", where=self.name) from error
        return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns

    def read(self) -> Iterator[SourceRow | BadRow]:
        """Read the rows in order. Raises `InputError` where not even the first can be read."""
        number: int | None = None
        try:
            for row in self.format.read(DataFile(self.path, self.compression)):
                number = row.number
                yield row
        except _READ_ERRORS as error:
            message = describe_error(error)
            if number is None:
                raise InputError(
                    f"the file cannot be read as {self.format.name}: {message}", where=self.name
                ) from error
            yield BadRow(
                number + 1, "unreadable", f"the file cannot be read from row {number + 1} on: {message}"
            )
        except InputError as error:
            where = f"{self.name}, {error.where}" if error.where else self.name
            raise InputError(error.what, where=where, remedy=error.remedy) from error


def open_file(path: Path) -> FilePart:
    """Open one file, with the format that its suffix names, else that its first bytes show.

    Raises `InputError` where neither identifies a format.
    """
    recognized = recognize_name(path)
    if recognized is not None:
        return FilePart(path, path.name, *recognized)
    format = recognize_start(_read_start(path))
    if format is None:
        raise InputError(
            "the format of the file cannot be recognized",
            where=str(path),
            remedy=f"rename it to end in one of {', '.join(list_suffixes())} "
            "(text formats also with .gz, .zst or .bz2)",
        )
    return FilePart(path, path.name, format)


def _read_start(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(_START_BYTES).removeprefix(codecs.BOM_UTF8)
    except OSError as error:
        raise InputError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
