"""What the user names as a source: a file, a directory, a hub id, or a generator of problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from rlt_data.errors import InputError, UsageError
from rlt_data.sources.files.reading import FORMATS, FilePart, find_files, name_format, open_file
from rlt_data.sources.hub import is_hub_id, load_hub_parts
from rlt_data.sources.procedural.explained_arithmetic import PREFIX as EXPLAINED
from rlt_data.sources.procedural.explained_arithmetic import open_arithmetic
from rlt_data.sources.procedural.reasoning_gym import open_reasoning_gym
from rlt_data.sources.procedural.reasoning_gym_options import PREFIX
from rlt_data.sources.rows import Part

DEFAULT_SIZE = 1000
"""Problems that a generator makes where no size is given."""


@dataclass(frozen=True)
class Source:
    """The parts of a source in order, and what the user should know about them."""

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
    """Open whatever `source` names. What exists on disk goes before a hub id of the same name.

    Raises `InputError` where nothing is found, `UsageError` where an argument does not go with the source.
    """
    if source.startswith(PREFIX):
        _refuse("problems that are generated", subset=subset, split=split, revision=revision)
        size = DEFAULT_SIZE if size is None else size
        return Source([open_reasoning_gym(source, size=size, seed=seed, options=options or {})])
    if source.startswith(EXPLAINED):
        _refuse("problems that are generated", subset=subset, split=split, revision=revision)
        size = DEFAULT_SIZE if size is None else size
        return Source([open_arithmetic(source, size=size, seed=seed, options=options or {})])
    _refuse("files and data sets; --limit N takes the first rows", size=size, options=options or None)
    path = Path(source).expanduser()
    if path.is_file():
        _refuse("a file", subset=subset, split=split, revision=revision)
        return Source([open_file(path)])
    if path.is_dir():
        _refuse("a directory", subset=subset, revision=revision)
        return _open_directory(path, split)
    if _looks_like_path(source):
        raise InputError(
            "there is no such file or directory",
            where=source,
            remedy=f"the working directory is {Path.cwd()}",
        )
    return Source(load_hub_parts(source, subset=subset, split=split, revision=revision))


def _open_directory(path: Path, split: str | None) -> Source:
    parts, skipped = find_files(path)
    if not parts:
        raise InputError(
            "the directory holds no data file",
            where=str(path),
            remedy="data files are named by their suffix: " + ", ".join(FORMATS),
        )
    if split is not None:
        chosen = [part for part in parts if _belongs_to(part, split)]
        if not chosen:
            raise UsageError(
                f"no file belongs to the split {split!r}",
                where=f"{path}: " + ", ".join(part.name for part in parts[:12]),
                remedy="a split is a folder, or how a file's name begins, such as train-00000.parquet",
            )
        parts = chosen
    shown = ", ".join(skipped[:5]) + (f" and {len(skipped) - 5} more" if len(skipped) > 5 else "")
    return Source(parts, [f"left out as no data: {shown}"] if skipped else [])


def _belongs_to(part: FilePart, split: str) -> bool:
    *folders, file = part.name.split("/")
    return split in folders or file == split or file.startswith((f"{split}-", f"{split}.", f"{split}_"))


def _looks_like_path(source: str) -> bool:
    """Say whether a name that is not there was meant as a path, not as a hub id."""
    windows = PureWindowsPath(source)
    return (
        not is_hub_id(source)
        or name_format(Path(source)) is not None
        or bool(windows.drive)
        or source.startswith((".", "~"))
    )


def _refuse(what: str, **arguments: object) -> None:
    for name, value in arguments.items():
        if value is not None:
            flag = {"options": "--option"}.get(name, f"--{name}")
            raise UsageError(f"{flag} does not go with {what}", where=f"{flag} {value}")
