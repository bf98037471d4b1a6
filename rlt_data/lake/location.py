"""The location of a lake: a local directory, a file:// URI, or object storage such as s3://."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rlt_data.errors import LakeError

ENVIRONMENT_VARIABLE = "RLT_DATA_LAKE"
DEFAULT_URI = "lake"
# delta-rs parses a path as a URL: these characters give another path, or abort the process.
_UNUSABLE = re.compile(r"[\[\]|^\\\x00-\x1f]|%[0-9a-fA-F]{2}")
REMOTE_SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "memory")


@dataclass(frozen=True)
class Location:
    """A resolved location: `uri` is an absolute local path, or the URI of a prefix in object storage."""

    uri: str
    local: bool

    def join(self, name: str) -> str:
        """Return the URI of one table."""
        return str(Path(self.uri) / name) if self.local else f"{self.uri}/{name}"


def resolve_location(uri: str | Path | None) -> Location:
    """Resolve `uri`, by default `$RLT_DATA_LAKE`, then `./lake`.

    Raises `LakeError` for an unsupported scheme, and for a path that delta-rs cannot open.
    """
    text = str(uri) if uri is not None else os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_URI
    if "://" not in text:
        return _resolve_path(Path(text).expanduser())
    parts = urlsplit(text)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise LakeError("a file URI must name this machine", where=text, remedy="write file:///path")
        return _resolve_path(Path(unquote(parts.path)))
    if parts.scheme not in REMOTE_SCHEMES:
        raise LakeError(
            f"storage of the scheme {parts.scheme!r} is not supported",
            where=text,
            remedy="use a path, file:///path, or one of: " + ", ".join(f"{s}://" for s in REMOTE_SCHEMES),
        )
    return Location(text.rstrip("/"), local=False)


def _resolve_path(path: Path) -> Location:
    full = str(path.absolute())
    found = _UNUSABLE.search(full)
    if found:
        raise LakeError(
            f"the path of a lake must not contain {found.group()!r}",
            where=full,
            remedy="choose a folder without brackets, backslashes, |, ^, control characters and %XX",
        )
    return Location(full, local=True)
