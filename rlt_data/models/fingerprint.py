"""The revision of a local model: a content hash of its weights, configuration and tokenizer files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from rlt_data.hashing import hash_content, hash_file

PATTERNS = ("*.safetensors", "*.json", "*.jinja", "merges.txt", "vocab.txt", "tokenizer.model")
# Written by trainers beside a model; they do not change what it computes.
IGNORED = frozenset({"trainer_state.json", "all_results.json", "train_results.json", "eval_results.json"})
SMALL_FILE = 4 << 20
# A file changed this recently may change again without its time showing it.
SETTLED_AFTER = 2.0


def hash_model_directory(directory: Path) -> str:
    """Hash the files of a local model that decide what it computes; names count, their folder does not.

    The hashes of large files are kept in the user's cache directory by path, size and time of change.
    """
    return hash_content(
        "model-directory", [(path.name, _hash_file_once(path)) for path in _list_files(directory)]
    )


def _list_files(directory: Path) -> Iterator[Path]:
    found = {path for pattern in PATTERNS for path in directory.glob(pattern) if path.is_file()}
    yield from sorted(path for path in found if path.name not in IGNORED)


def _hash_file_once(path: Path) -> str:
    real = path.resolve()
    state = real.stat()
    if state.st_size < SMALL_FILE:
        return hash_file(real)
    note = _find_cache_directory() / f"{hash_content(str(real))}.json"
    known = _read_note(note)
    if known.get("size") == state.st_size and known.get("mtime_ns") == state.st_mtime_ns:
        return str(known["digest"])
    digest = hash_file(real)
    if time.time() - state.st_mtime > SETTLED_AFTER:
        _write_note(note, {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "digest": digest})
    return digest


def _find_cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "rlt-data" / "file-hashes"


def _read_note(note: Path) -> dict[str, str | int]:
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and "digest" in content else {}


def _write_note(note: Path, content: dict[str, str | int]) -> None:
    """Write whole or not at all; a cache that cannot be written costs time, nothing else."""
    draft = note.with_suffix(f".{os.getpid()}.tmp")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(content), encoding="utf-8")
        draft.replace(note)
    except OSError:
        draft.unlink(missing_ok=True)
