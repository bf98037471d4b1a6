"""Files put in their place whole or not at all, and told apart by their content."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from rlt_data.hashing import hash_content, hash_file


def hash_files(target: Path, name: str | None = None) -> dict[str, str]:
    """Hash each file of a directory by its path within it, or one file by its name; `name` stands for it."""
    if target.is_file():
        return {name or target.name: hash_file(target)}
    return {file.relative_to(target).as_posix(): hash_file(file) for file in _list_files(target)}


def is_intact(target: Path, files: Mapping[str, str]) -> bool:
    """Whether the files of a finished export are there and unchanged; others beside them do not matter."""
    folder = target if target.is_dir() else target.parent
    places = [(folder / name, digest) for name, digest in files.items()]
    return bool(places) and all(place.is_file() and hash_file(place) == digest for place, digest in places)


@contextmanager
def write_aside(target: Path) -> Iterator[Path]:
    """Give a path beside `target` to write to; it takes the target's place when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    stem = f".{target.name}.{hash_content(str(target))[:8]}"
    draft, old = target.with_name(f"{stem}.partial"), target.with_name(f"{stem}.replaced")
    if old.exists() and not target.exists():
        old.rename(target)
    for left_over in (draft, old):
        _remove(left_over)
    try:
        yield draft
        _flush_to_disk(draft)
        if target.is_dir():
            # A directory cannot be replaced in one step: the old one is put back if the second step fails.
            target.rename(old)
        draft.rename(target)
        _flush_directory(target.parent)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for left_over in (draft, old):
            _remove(left_over)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    for file in _list_files(path):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


def _flush_directory(folder: Path) -> None:
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _list_files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
