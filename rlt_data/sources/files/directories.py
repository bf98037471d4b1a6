"""The data files below a directory, and those that `datasets` saved there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlt_data.sources.files.formats import find_format, recognize_name
from rlt_data.sources.files.parts import FilePart

_METADATA_FILES = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})


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
            parts.append(FilePart(path, path.relative_to(root).as_posix(), find_format("arrow")))
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
        elif recognized := recognize_name(path):
            parts.append(FilePart(path, name, *recognized))
        else:
            skipped.append(name)


def _read_list(path: Path, name: str) -> list[Any] | None:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    value = document.get(name) if isinstance(document, dict) else None
    return value if isinstance(value, list) else None
