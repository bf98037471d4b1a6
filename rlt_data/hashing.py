"""Content hashes, which identify rows, configurations and files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def hash_content(*parts: Any) -> str:
    """Hash JSON-representable `parts` into 32 hexadecimal characters (BLAKE2b, 128 bits).

    The order of a mapping's keys does not change the hash; 1, 1.0 and "1" have different hashes.
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def hash_file(path: Path) -> str:
    """Hash the bytes of one file into 32 hexadecimal characters (BLAKE2b, 128 bits)."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16))
    return digest.hexdigest()
