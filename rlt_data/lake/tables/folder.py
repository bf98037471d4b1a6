"""The files of one table's folder, on this machine or in object storage."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from typing import IO, cast

import pyarrow as pa
import pyarrow.fs as arrow_fs
from deltalake.fs import DeltaStorageHandler

LOG = "_delta_log"
_BLOCK = 2**22


class TableFolder:
    """Lists, reads, writes and moves the files of one table by their paths within its folder.

    All methods raise `OSError` where the storage fails, and `FileNotFoundError` for a file that is missing.
    """

    def __init__(self, uri: str, storage_options: Mapping[str, str] | None, *, local: bool) -> None:
        self._uri = uri
        self._storage_options = dict(storage_options) if storage_options else None
        self._local = local

    @cached_property
    def _files(self) -> arrow_fs.FileSystem:
        if self._local:
            return arrow_fs.SubTreeFileSystem(self._uri, arrow_fs.LocalFileSystem())
        return arrow_fs.PyFileSystem(_Storage(self._uri, self._storage_options))

    def list_sizes(self, folder: str = "") -> dict[str, int]:
        """Return the size in bytes of each file directly in `folder`, by name; empty if it does not exist."""
        selector = arrow_fs.FileSelector(folder, allow_not_found=True)
        found = self._files.get_file_info(selector)
        return {info.base_name: int(info.size) for info in found if info.is_file}

    def find_size(self, path: str) -> int | None:
        """Return the size of a file in bytes; None if it does not exist."""
        info = self._files.get_file_info(path)
        return int(info.size) if info.is_file else None

    def read(self, path: str) -> bytes:
        """Read a whole file."""
        with self._files.open_input_stream(path) as stream:
            return cast("bytes", stream.read())

    def read_end(self, path: str, length: int) -> bytes:
        """Read the last `length` bytes of a file, or all of a shorter one."""
        with self._files.open_input_file(path) as stream:
            stream.seek(max(0, stream.size() - length))
            return cast("bytes", stream.read(length))

    def hash(self, path: str) -> str:
        """Return the SHA-256 of a file as hexadecimal digits."""
        digest = hashlib.sha256()
        with self._files.open_input_stream(path) as stream:
            while block := stream.read(_BLOCK):
                digest.update(block)
        return digest.hexdigest()

    def write(self, path: str, content: bytes) -> None:
        """Write a whole file, creating its folder or replacing the file."""
        self._files.create_dir(path.rpartition("/")[0], recursive=True)
        with self._files.open_output_stream(path) as stream:
            stream.write(content)

    def move(self, path: str, target: str) -> None:
        """Move a file, creating the target's folder."""
        self._files.create_dir(target.rpartition("/")[0], recursive=True)
        self._files.move(path, target)

    def open_input(self, path: str) -> IO[bytes]:
        """Open a file for reading at any position."""
        return cast("IO[bytes]", self._files.open_input_file(path))

    def open_output(self, path: str) -> IO[bytes]:
        """Open a file for writing; its folder exists."""
        return cast("IO[bytes]", self._files.open_output_stream(path))


class _Storage(DeltaStorageHandler):
    """Object storage; its streams accept the buffers of Arrow."""

    def open_output_stream(self, path: str, metadata: dict[str, str] | None = None) -> pa.PythonFile:
        stream = cast("IO[bytes]", self._handler.open_output_stream(path, metadata))
        return pa.PythonFile(_BytesOutput(stream))


class _BytesOutput:
    """A stream of delta-rs, which accepts nothing but bytes."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def write(self, data: bytes | memoryview) -> int:
        return self._stream.write(bytes(data))

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


class HashingOutput:
    """A file opened for writing that hashes and counts what is written to it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.size = 0
        self.closed = False

    @property
    def sha256(self) -> str:
        """The SHA-256 of all bytes written so far, as hexadecimal digits."""
        return self._digest.hexdigest()

    def write(self, data: bytes | memoryview) -> int:
        """Write bytes."""
        block = memoryview(data).cast("B")
        self._digest.update(block)
        self._stream.write(cast("bytes", data))
        self.size += len(block)
        return len(block)

    def tell(self) -> int:
        """Return the number of bytes written so far."""
        return self.size

    def writable(self) -> bool:
        """Return True: Arrow checks it before it writes."""
        return True

    def flush(self) -> None:
        """Do nothing: everything is written at once."""

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self.closed = True
            self._stream.close()
