"""What a layout is: the columns that identify it, and how one row becomes a question with its traces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rlt_data.sources.values import read_text

Signatures = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Explanation:
    """One trace in a row.

    `text` is verbatim. With `tagged` it is a whole completion, whose tags mark thinking and solution;
    otherwise it is the thinking alone, and `solution` comes from a column of its own.
    """

    text: str
    tagged: bool = True
    solution: str | None = None
    grade: bool | None = None
    teacher: str | None = None


@dataclass(frozen=True)
class Example:
    """One row as a layout reads it: question, solution, answer, traces and all other columns.

    A missing answer is extracted from the solution. With `solution_in_trace` the true solution is the one
    in the first trace.
    """

    question: str | None
    solution: str | None = None
    answer: str | None = None
    traces: Sequence[Explanation] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    solution_in_trace: bool = False


class Row:
    """One row by column name, regardless of case. Columns that no layout takes become metadata."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._names = {name.casefold(): name for name in values}
        self._taken: set[str] = set()

    def take(self, column: str) -> Any:
        """Return the value of a column, unchanged; None where there is no such column."""
        name = column if column in self._values else self._names.get(column.casefold())
        if name is None:
            return None
        self._taken.add(name)
        return self._values[name]

    def take_text(self, *columns: str) -> str | None:
        """Return the text of the first column that has any. Raises `RowError` for other values."""
        for column in columns:
            text = read_text(self.take(column), column)
            if text is not None:
                return text
        return None

    def take_rest(self) -> dict[str, Any]:
        """Return the columns that were not taken."""
        return {name: value for name, value in self._values.items() if name not in self._taken}


class Layout(ABC):
    """One public layout.

    To add one, put a subclass into a file of the folder `public`, where it is discovered.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    """The columns in words, for messages."""
    signatures: ClassVar[Signatures]
    """Sets of columns in lower case, each of which identifies the layout."""
    looks_into_values: ClassVar[bool] = False
    """True where `agrees` distinguishes the layout from others with the same columns."""

    @abstractmethod
    def read(self, row: Row) -> Example:
        """Read one row; blank values are None. Raises `RowError` for values of the wrong type or shape."""

    def agrees(self, rows: Sequence[Row]) -> bool:
        """Return whether the values of the first rows are those of this layout."""
        return True

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that a signature names."""
        return tuple(dict.fromkeys(name for signature in self.signatures for name in signature))
