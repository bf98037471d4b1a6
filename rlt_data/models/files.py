"""The small JSON files beside a model's weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlt_data.errors import ModelError


def read_json(file: Path) -> dict[str, Any]:
    """Read one JSON object. Raises `ModelError` with the file where it is missing or broken."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"the file cannot be read: {error}", where=str(file)) from error
    if not isinstance(content, dict):
        raise ModelError("the file is not a JSON object", where=str(file))
    return content
