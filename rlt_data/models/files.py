"""The small JSON files beside a model's weights."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

from rlt_data.errors import ModelError
from rlt_data.validation import explain_digits

MOST_BYTES = 256 << 20
"""The largest file of JSON; the index of a model's weights has a few megabytes."""


def read_json(file: Path) -> dict[str, Any]:
    """Read one JSON object. Raises `ModelError` with the file where it is missing or broken."""
    try:
        state = file.stat()
        if not stat.S_ISREG(state.st_mode) or state.st_size > MOST_BYTES:
            raise ModelError(f"this is not a file of at most {MOST_BYTES >> 20} MiB", where=str(file))
        content = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ModelError(f"the file is not JSON: {error}", where=str(file)) from error
    except RecursionError as error:
        raise ModelError("the file cannot be read: it is nested too deeply", where=str(file)) from error
    except (OSError, ValueError) as error:
        raise ModelError(f"the file cannot be read: {explain_digits(error)}", where=str(file)) from error
    if not isinstance(content, dict):
        raise ModelError("the file is not a JSON object", where=str(file))
    return content
