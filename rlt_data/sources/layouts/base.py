"""What a layout is: the columns it is told by, and how one row becomes a question with its traces."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rlt_data.sources.values import read_text

Signatures = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Explanation:
    """One trace as a row holds it.

    `text` is verbatim. With `tagged` it is a whole completion, to be taken apart by its tags; otherwise it
    is the thinking alone, and `solution` what the source gives as its result.
    """

    text: str
    tagged: bool = True
    solution: str | None = None
    grade: bool | None = None
    teacher: str | None = None


@dataclass(frozen=True)
class Example:
    """One row read by a layout: a question, what is known of its solution, its traces, and the rest.

    A missing answer is looked for in the solution. With `solution_in_trace` the true solution is the one
    that the first trace states.
    """

    question: str | None
    solution: str | None = None
    answer: str | None = None
    traces: Sequence[Explanation] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    solution_in_trace: bool = False


class Row:
    """One row by column name, whatever the case. What is not taken of it is metadata."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self._names = {name.casefold(): name for name in values}
        self._taken: set[str] = set()

    def take(self, column: str) -> Any:
        """Return a column's value as it stands, None where there is no such column."""
        name = column if column in self._values else self._names.get(column.casefold())
        if name is None:
            return None
        self._taken.add(name)
        return self._values[name]

    def take_text(self, *columns: str) -> str | None:
        """Return the text of the first column that holds any. Raises `RowError` for what is no text."""
        for column in columns:
            text = read_text(self.take(column), column)
            if text is not None:
                return text
        return None

    def take_rest(self) -> dict[str, Any]:
        """Return the columns that were not taken."""
        return {name: value for name, value in self._values.items() if name not in self._taken}


class Layout(ABC):
    """One public layout. Subclass it, say its name, columns and reading, and add it to `LAYOUTS`."""

    name: ClassVar[str]
    about: ClassVar[str]
    signatures: ClassVar[Signatures]
    """Sets of columns, any one of which tells the layout, whatever the case of the names."""
    looks_into_values: ClassVar[bool] = False
    """True where `agrees` tells the layout from others with the same columns."""

    @abstractmethod
    def read(self, row: Row) -> Example:
        """Read one row. Raises `RowError` where its values make no sense; blank ones are None."""

    def agrees(self, rows: Sequence[Row]) -> bool:
        """Say whether the values of the first rows are what this layout holds."""
        return True

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that a signature names."""
        return tuple(dict.fromkeys(name for signature in self.signatures for name in signature))
