"""Open a source by its name: a file, a directory, a hub id, or a generator of problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any, Protocol

from rlt_data.atomic_files import name_kind
from rlt_data.errors import InputError, UsageError
from rlt_data.sources.files.directories import find_files
from rlt_data.sources.files.formats import list_suffixes, recognize_name
from rlt_data.sources.files.parts import FilePart, open_file
from rlt_data.sources.hub import is_hub_id, load_hub_parts
from rlt_data.sources.procedural import explained_arithmetic, reasoning_gym, reasoning_gym_options
from rlt_data.sources.rows import Part

DEFAULT_SIZE = 1000
"""Number of problems that a generator makes where no size is given."""


class OpenGenerator(Protocol):
    """Opens a generator of problems by its whole name, prefix included."""

    def __call__(self, spec: str, *, size: int, seed: int, options: Mapping[str, Any]) -> Part:
        """Return the part. Raises `UsageError` for an unknown name or option."""


GENERATORS: Mapping[str, OpenGenerator] = {
    reasoning_gym_options.PREFIX: reasoning_gym.open_reasoning_gym,
    explained_arithmetic.PREFIX: explained_arithmetic.open_arithmetic,
}
"""Generators of problems by the prefix of their names; a new one is an entry here."""


@dataclass(frozen=True)
class Source:
    """The parts of a source in order, and notes for the user about it."""

    parts: Sequence[Part]
    notes: Sequence[str] = ()


def open_source(
    source: str,
    *,
    size: int | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    subset: str | None = None,
    split: str | None = None,
    revision: str | None = None,
) -> Source:
    """Open the file, directory, hub dataset or generator that `source` names.

    A file or directory takes precedence over a hub id of the same name. Raises `InputError` where nothing
    is found, `UsageError` where an argument does not apply to the source.
    """
    for prefix, open_generator in GENERATORS.items():
        if source.startswith(prefix):
            _refuse("generated problems", subset=subset, split=split, revision=revision)
            count = DEFAULT_SIZE if size is None else size
            return Source([open_generator(source, size=count, seed=seed, options=options or {})])
    _refuse("files and datasets; use --limit N for the first rows", size=size, options=options or None)
    path = Path(source).expanduser()
    if path.is_file():
        _refuse("a file", subset=subset, split=split, revision=revision)
        return Source([open_file(path)])
    if path.is_dir():
        _refuse("a directory", subset=subset, revision=revision)
        return _open_directory(path, split)
    if path.exists():
        # A source is read more than once: to identify it, and to read its rows.
        raise InputError(
            f"the source is {name_kind(path.stat().st_mode)}, and only files and directories can be read",
            where=source,
            remedy="write the data to a file first",
        )
    if _looks_like_path(source):
        raise InputError(
            "there is no such file or directory",
            where=source,
            remedy=f"check the path; the working directory is {Path.cwd()}",
        )
    return Source(load_hub_parts(source, subset=subset, split=split, revision=revision))


def _open_directory(path: Path, split: str | None) -> Source:
    parts, skipped = find_files(path)
    if not parts:
        raise InputError(
            "the directory contains no data files",
            where=str(path),
            remedy=f"data files are recognized by their suffix: {', '.join(list_suffixes())}",
        )
    if split is not None:
        chosen = [part for part in parts if _belongs_to(part, split)]
        if not chosen:
            raise UsageError(
                f"no file belongs to the split {split!r}",
                where=f"{path}: " + ", ".join(part.name for part in parts[:12]),
                remedy="a split is a folder, or the beginning of a file name, such as train-00000.parquet",
            )
        parts = chosen
    shown = ", ".join(skipped[:5]) + (f" and {len(skipped) - 5} more" if len(skipped) > 5 else "")
    return Source(parts, [f"skipped files that are not data: {shown}"] if skipped else [])


def _belongs_to(part: FilePart, split: str) -> bool:
    *folders, file = part.name.split("/")
    return split in folders or file == split or file.startswith((f"{split}-", f"{split}.", f"{split}_"))


def _looks_like_path(source: str) -> bool:
    """Return whether a name that does not exist here was meant as a path, not as a hub id."""
    windows = PureWindowsPath(source)
    return (
        not is_hub_id(source)
        or recognize_name(Path(source)) is not None
        or bool(windows.drive)
        or source.startswith((".", "~"))
    )


def _refuse(what: str, **arguments: object) -> None:
    for name, value in arguments.items():
        if value is not None:
            flag = {"options": "--option"}.get(name, f"--{name}")
            raise UsageError(f"{flag} does not apply to {what}", where=f"{flag} {value}")
