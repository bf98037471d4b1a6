"""What an export may replace: a regular file, or a directory that an export wrote and that holds no more."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from rlt_data.atomic_files import check_kind
from rlt_data.errors import UsageError
from rlt_data.stages.export.forms import FORMS, Form

MANIFEST = ".rlt-data-export.json"
"""The file of an exported directory that lists all its files; without it a directory is not replaced."""

_WRITER = "rlt-data export"
# Exports of version 0.1 have no manifest: they are recognized by their card and the names of their shards.
_CARD = "README.md"
_CARD_TAG = "- rlt-data"
_CARD_TEXT = re.compile(r"training examples for a reasoning student, made with rlt-data \S+ by the method of")
_SHARD = re.compile(r"data/train-\d{5}-of-\d{5}\.parquet")
_CARD_BYTES = 1 << 20


def write_manifest(folder: Path) -> None:
    """List the files of an exported directory in its manifest."""
    files = sorted(_walk(folder))
    content = json.dumps({"written_by": _WRITER, "files": files}, indent=2)
    (folder / MANIFEST).write_text(content + "\n", encoding="utf-8")


def check_replaceable(target: Path, form: Form) -> None:
    """Raise `UsageError` unless `target` is absent, or may be replaced by an export of `form`.

    A regular file may be replaced by a file, and a directory by a directory if it is empty or if an export
    wrote it and nothing was added to it.
    """
    check_kind(target)
    if not os.path.lexists(target):
        return
    if not FORMS[form].is_directory:
        wrong = ["a directory"] if target.is_dir() else []
    elif target.is_dir():
        wrong = _list_others(target)
    else:
        wrong = ["a file"]
    if wrong:
        raise UsageError(
            f"the path exists and is not an export of the form {form}, so it is not replaced",
            where=f"{target}: {', '.join(wrong[:5])}",
            remedy="name another path, or remove it yourself",
        )


def _list_others(folder: Path) -> list[str]:
    """List what a directory holds that no export put there."""
    held = sorted(_walk(folder))
    written = _read_manifest(folder)
    if written is None:
        written = _list_exported(folder, held)
    return [path for path in held if path not in written]


def _read_manifest(folder: Path) -> set[str] | None:
    """Return the files that the manifest lists, itself included; None where there is none."""
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["written_by"] != _WRITER:
            return None
        return {MANIFEST, *map(str, content["files"])}
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _list_exported(folder: Path, held: Iterable[str]) -> set[str]:
    """Return the files of an export without a manifest; none where the card is not one that exports write."""
    card = folder / _CARD
    if card.is_symlink() or not card.is_file():
        return set()
    with card.open("rb") as stream:
        text = stream.read(_CARD_BYTES).decode("utf-8", "replace")
    front, _, body = text.removeprefix("---\n").partition("\n---\n")
    if not text.startswith("---\n") or _CARD_TAG not in front.splitlines() or not _CARD_TEXT.search(body):
        return set()
    return {path for path in held if path == _CARD or _SHARD.fullmatch(path)}


def _walk(folder: Path) -> Iterable[str]:
    """List files, links and empty folders, relative to `folder`; a link in place of a file is marked."""
    for parent, folders, files in os.walk(folder):
        for name in (*files, *folders):
            path = Path(parent, name)
            relative = path.relative_to(folder).as_posix()
            if path.is_symlink():
                yield f"{relative} (a link)"
            elif name in files:
                yield relative if path.is_file() else f"{relative} (a special file)"
            elif not any(path.iterdir()):
                yield f"{relative}/"
