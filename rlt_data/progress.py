"""Progress on stderr: a bar a step, with throughput and the time left; quiet where nobody looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Task:
    """One step that is followed: how many units and tokens are done."""

    def __init__(self, total: int | None, unit: str, bar: tuple[Progress, TaskID] | None) -> None:
        self.total = total
        self.unit = unit
        self.done = 0
        self.tokens = 0
        self._bar = bar
        self._started = time.monotonic()

    @property
    def rate(self) -> str:
        """Throughput so far, such as `12.3 rows/s 4,100 tokens/s`."""
        seconds = max(time.monotonic() - self._started, 1e-6)
        text = f"{self.done / seconds:,.1f} {self.unit}/s"
        return f"{text} {self.tokens / seconds:,.0f} tokens/s" if self.tokens else text

    def advance(self, n: int = 1, tokens: int = 0) -> None:
        """Count `n` more units as done, and `tokens` more tokens."""
        self.done += n
        self.tokens += tokens
        if self._bar is not None:
            progress, task_id = self._bar
            progress.update(task_id, advance=n, rate=self.rate)


class Reporter:
    """Shows progress on stderr; silent when `quiet`, or when stderr is no terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.silenced = quiet
        """Whether the user asked for quiet; what belongs into a log of its own looks at this."""
        self.quiet = quiet or not sys.stderr.isatty()
        self._console = Console(stderr=True)
        self._display: Progress | None = None

    @contextmanager
    def track(self, description: str, total: int | None, unit: str = "rows") -> Iterator[Task]:
        """Follow one step of `total` units (None where unknown) while the block runs; steps may nest."""
        if self.quiet:
            yield Task(total, unit, None)
            return
        outer = self._display
        display = outer or Progress(*_make_columns(), console=self._console)
        task_id = display.add_task(description, total=total, rate="")
        if outer is None:
            display.start()
            self._display = display
        try:
            yield Task(total, unit, (display, task_id))
        finally:
            if outer is None:
                display.stop()
                self._display = None

    def say(self, text: str) -> None:
        """Print one line on stderr, above the bars, unless quiet."""
        if not self.quiet:
            self._console.print(text, highlight=False, markup=False)


def _make_columns() -> tuple[ProgressColumn, ...]:
    return (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
