"""What a source yields: rows with unchanged values, and rows that could not be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rlt_data.errors import InputError


@dataclass(frozen=True)
class SourceRow:
    """One row with the values of the source. `number` counts the rows of a part from 0, bad ones included."""

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
    """A row was read but cannot be used. The ingester catches it and writes a reject."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def refuse_repeated_columns(names: Sequence[str], remedy: str) -> None:
    """Raise `InputError` where two columns have the same name: it would be unclear which one counts."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(
            f"the file names a column twice: {', '.join(repeated)}",
            where="columns: " + ", ".join(names),
            remedy=remedy,
        )


def describe_error(error: Exception) -> str:
    """Return the first line of an error's message, or its type where it has none."""
    return (str(error) or type(error).__name__).splitlines()[0]


class Part(Protocol):
    """One file, split or generator of a source."""

    @property
    def name(self) -> str:
        """The value of `questions.source`: never an absolute path."""

    @property
    def layout(self) -> str | None:
        """Name of the layout where the part determines it; None where it depends on rows and options."""

    @property
    def dataset(self) -> str | None:
        """The value of `questions.dataset`; None where it is the name of the layout."""

    def count_rows(self) -> int | None:
        """Return the number of rows; None where counting would mean reading them."""

    def read(self) -> Iterator[SourceRow | BadRow]:
        """Read the rows in order, a few at a time.

        Raises `InputError` where nothing can be read; damage after the first row is a `BadRow`.
        """

    def identify(self) -> str:
        """Return a hash of what determines the rows: the content of a file, the settings of a generator."""

    def take_stamp(self) -> object:
        """Return something that differs after the content was written to; None where nothing writes to it."""
