"""What a source yields: rows as they stand, and rows that could not be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class SourceRow:
    """One row as the source holds it. `number` counts the part's rows from 0, bad ones included."""

    number: int
    values: dict[str, Any]


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read. `content` is the raw text, where there is any."""

    number: int | None
    reason: str
    detail: str
    content: str | None = None


class RowError(Exception):
    """A row was read but cannot be used. Caught where rows are taken in; it becomes a reject."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def describe_error(error: Exception) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]


class Part(Protocol):
    """One file, split or generator of a source."""

    @property
    def name(self) -> str:
        """What stands in `questions.source`: never an absolute path."""

    def count_rows(self) -> int | None:
        """Return how many rows there are, where that is known without reading them."""

    def read(self) -> Iterator[SourceRow | BadRow]:
        """Read the rows in order, a few at a time.

        Raises `InputError` where nothing can be read; damage further on is a `BadRow`.
        """

    def identify(self) -> str:
        """Return the content hash of the part, or what else decides its rows."""
