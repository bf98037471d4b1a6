"""Types of the numbers in configurations: each is finite, with bounds far outside of any real use."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
"""How every configuration is validated."""

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.001, 100.0
_LARGEST_OPTION = 10**18
_DEEPEST_OPTION = 20


SMALLEST_MEMORY, LARGEST_MEMORY = 2**20, 2**50
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*([kmgt]i?|)b?\s*", re.IGNORECASE)


def parse_memory(text: str) -> int:
    """Parse a size of memory such as 8GiB, 500MB or 4000000000, in bytes. Raises `ValueError`."""
    found = _SIZE.fullmatch(text)
    if found is not None:
        unit = found[2].lower()
        size = float(found[1]) * (_BINARY.get(unit) or _UNITS[unit])
        if SMALLEST_MEMORY <= size <= LARGEST_MEMORY:
            return int(size)
    raise ValueError("the size of memory should be from 1MiB to 1024TiB, such as 8GiB, 500MB or 4000000000")


def _check_memory(text: str) -> str:
    parse_memory(text)
    return text


def _check_sampling_temperature(temperature: float) -> float:
    if 0 < temperature < LOWEST_TEMPERATURE:
        raise ValueError(
            f"the temperature should be 0 (greedy), or from {LOWEST_TEMPERATURE} to {HIGHEST_TEMPERATURE:g}"
        )
    return temperature


def _check_options(options: Any, depth: int = 0) -> Any:
    """Refuse numbers that are not finite or too large, wherever they are in `options`."""
    if depth > _DEEPEST_OPTION:
        raise ValueError(f"options should be nested at most {_DEEPEST_OPTION} deep")
    match options:
        case Mapping():
            for value in options.values():
                _check_options(value, depth + 1)
        case list() | tuple():
            for value in options:
                _check_options(value, depth + 1)
        case float() if not math.isfinite(options) or abs(options) > _LARGEST_OPTION:
            raise ValueError(f"numbers should be finite and at most 1e18, found {options}")
        case int() if abs(options) > _LARGEST_OPTION:
            raise ValueError("numbers should be at most 1e18")
    return options


Count = Annotated[int, Field(ge=1, le=1_000_000)]
"""How often or how many at once."""

Processes = Annotated[int, Field(ge=1, le=1024)]
"""Processes on one machine."""

Rows = Annotated[int, Field(ge=1, le=10**12)]
"""Rows of a table or of a source."""

Tokens = Annotated[int, Field(ge=1, le=10**9)]
"""Tokens of a text or of a batch."""

Characters = Annotated[int, Field(ge=1, le=10**9)]
"""Characters of a text."""

Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
"""Seed that is hashed."""

TrainingSeed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""Seed of the generators of random numbers of torch and NumPy."""

Share = Annotated[float, Field(ge=0, le=1)]

Weight = Annotated[float, Field(ge=0, le=1e6)]
"""Weight of one part of a sum."""

Temperature = Annotated[float, Field(ge=LOWEST_TEMPERATURE, le=HIGHEST_TEMPERATURE)]
"""What logits are divided by."""

SamplingTemperature = Annotated[
    float, Field(ge=0, le=HIGHEST_TEMPERATURE), AfterValidator(_check_sampling_temperature)
]
"""Temperature of sampling; 0 is greedy."""

MemorySize = Annotated[str, AfterValidator(_check_memory)]
"""Size of memory as text; see `parse_memory`."""

Nats = Annotated[float, Field(gt=0, le=1e6)]
"""Difference of log-probabilities."""

ClipKl = Annotated[float, Field(ge=1e-6, le=1e6)]
"""Largest divergence, in nats; below the smallest, only signs would be left of divergences."""

Seconds = Annotated[float, Field(gt=0, le=864_000)]
"""Time limit."""

Options = Annotated[dict[str, Any], AfterValidator(_check_options)]
"""Options that are passed on to another library."""
