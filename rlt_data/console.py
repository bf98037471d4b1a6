"""The consoles that draw tables, trees and bars: Rich, with text shown by `make_visible`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import Style
from rich.table import Table
from rich.text import Text

from rlt_data.terminal import make_visible, show_line


class VisibleConsole(Console):
    """A Rich console that reads no markup in text, and writes no control code but its own."""

    def __init__(self, *, stderr: bool = False, width: int | None = None, plain: bool = False) -> None:
        super().__init__(
            stderr=stderr,
            width=width,
            force_terminal=False if plain else None,
            color_system=None if plain else "auto",
            highlight=False,
            markup=False,
            emoji=False,
        )

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as Rich does, with the text of every segment made visible and without links."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(make_visible(segment.text), _remove_link(segment.style))


def make_cell(value: Any, style: str = "") -> Text:
    """Make the text of one cell, title or label, on one line; None is empty."""
    return Text("" if value is None else show_line(value), style=style)


def draw_table(console: Console, table: Table) -> str:
    """Draw a table as lines of text, without spaces at their ends; print it by `print_drawn`."""
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()) + "\n"


def _remove_link(style: Style | None) -> Style | None:
    return style.update_link(None) if style is not None and style.link else style
