"""The revision of a local model: a content hash of its weights, configuration and tokenizer files."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

from rlt_data.hashing import hash_content, hash_file
from rlt_data.models.weight_files import list_index_entries

PATTERNS = ("*.safetensors", "*.json", "*.jinja", "merges.txt", "vocab.txt", "tokenizer.model")
# Loaded in place of chat_template.jinja where it exists; other templates there are never rendered.
DEFAULT_TEMPLATE = "additional_chat_templates/default.jinja"
# Trainers write these beside a model; they do not change what it computes.
IGNORED = frozenset({"trainer_state.json", "all_results.json", "train_results.json", "eval_results.json"})
SMALL_FILE = 4 << 20
# Seconds. A file that changed more recently may change again within the resolution of its time stamp.
SETTLED_AFTER = 2.0


def hash_model_directory(directory: Path, *, code: bool = False) -> str:
    """Hash the files of a local model that decide what it computes: their names and contents, not the folder.

    A link counts as the file that it leads to. With `code`, the Python files of a model whose own code is
    trusted count too. The hashes of large files are cached in the user's cache directory, by path and by what
    a rewrite changes (see `_stamp`). Raises `ModelError` where the weight index names files outside
    `directory`.
    """
    files = list_model_files(directory, code=code)
    return hash_content(
        "model-directory",
        [(path.relative_to(directory).as_posix(), _hash_file_once(path)) for path in files],
    )


def list_model_files(directory: Path, *, code: bool = False) -> list[Path]:
    """List the files that loading a model from `directory` reads. Raises as `hash_model_directory`."""
    found = {path for pattern in PATTERNS for path in directory.glob(pattern) if path.is_file()}
    found |= {directory / name for name in list_index_entries(directory) if (directory / name).is_file()}
    if (default := directory / DEFAULT_TEMPLATE).is_file():
        found.add(default)
    if code:
        found |= {path for path in directory.rglob("*.py") if path.is_file()}
    return sorted(path for path in found if path.name not in IGNORED)


def _hash_file_once(path: Path) -> str:
    real = path.resolve()
    state = real.stat()
    if state.st_size < SMALL_FILE:
        return hash_file(real)
    entry = _find_cache_directory() / f"{hash_content(str(real))}.json"
    stamp = _stamp(state)
    cached = _read_entry(entry)
    if all(cached.get(name) == value for name, value in stamp.items()):
        return str(cached["digest"])
    digest = hash_file(real)
    if time.time() - max(state.st_mtime, state.st_ctime) > SETTLED_AFTER and _stamp(real.stat()) == stamp:
        _write_entry(entry, {**stamp, "digest": digest})
    return digest


def _stamp(state: os.stat_result) -> dict[str, int]:
    """Return what a rewrite of a file changes; a program can set the time of modification, not the other."""
    return {
        "size": state.st_size,
        "mtime_ns": state.st_mtime_ns,
        "ctime_ns": state.st_ctime_ns,
        "inode": state.st_ino,
        "device": state.st_dev,
    }


def _find_cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "rlt-data" / "file-hashes"


def _read_entry(entry: Path) -> dict[str, str | int]:
    try:
        content = json.loads(entry.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) and "digest" in content else {}


def _write_entry(entry: Path, content: Mapping[str, str | int]) -> None:
    """Write the entry atomically; a cache that cannot be written only costs time."""
    draft = entry.with_suffix(f".{os.getpid()}.tmp")
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(content), encoding="utf-8")
        draft.replace(entry)
    except OSError:
        draft.unlink(missing_ok=True)
