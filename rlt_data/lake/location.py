"""Where a lake is: a local directory, a file:// URI, or object storage such as s3://."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rlt_data.errors import LakeError

ENVIRONMENT_VARIABLE = "RLT_DATA_LAKE"
DEFAULT_URI = "lake"
REMOTE_SCHEMES = ("s3", "s3a", "gs", "az", "abfs", "abfss", "memory")


@dataclass(frozen=True)
class Location:
    """A resolved place: `uri` is an absolute local path, or the URI of a prefix in object storage."""

    uri: str
    local: bool

    def join(self, name: str) -> str:
        """Return the URI of one table."""
        return str(Path(self.uri) / name) if self.local else f"{self.uri}/{name}"


def resolve_location(uri: str | Path | None) -> Location:
    """Resolve `uri`; without one, `$RLT_DATA_LAKE`, then `./lake`.

    Raises `LakeError` for a scheme that no storage is known for.
    """
    text = str(uri) if uri is not None else os.environ.get(ENVIRONMENT_VARIABLE) or DEFAULT_URI
    if "://" not in text:
        return Location(str(Path(text).expanduser().absolute()), local=True)
    parts = urlsplit(text)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost"):
            raise LakeError("a file URI names another machine", where=text, remedy="write file:///path")
        return Location(str(Path(unquote(parts.path)).absolute()), local=True)
    if parts.scheme not in REMOTE_SCHEMES:
        raise LakeError(
            f"no storage is known for the scheme {parts.scheme!r}",
            where=text,
            remedy="use a path, file:///path, or one of: " + ", ".join(f"{s}://" for s in REMOTE_SCHEMES),
        )
    return Location(text.rstrip("/"), local=False)
