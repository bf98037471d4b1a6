"""Progress on stderr: a bar per step in a terminal, elsewhere a plain line at intervals."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from rlt_data.console import VisibleConsole
from rlt_data.terminal import print_note, show_block, show_line

LINE_SECONDS = 30.0
"""Where stderr is not a terminal, a running step prints a line this often."""

Clock = Callable[[], float]


class Task:
    """One step whose progress is shown: how many units and tokens are done. Threads may share it."""

    def __init__(
        self,
        description: str = "",
        total: int | None = None,
        unit: str = "rows",
        *,
        on_advance: Callable[[int, str], None] | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.description = show_line(description)
        self.total = total
        self.unit = unit
        self.done = 0
        self.tokens = 0
        self._on_advance = on_advance
        self._clock = clock
        self._started = clock()
        self._lock = threading.Lock()

    @property
    def rate(self) -> str:
        """Throughput so far, such as `12.3 rows/s 4,100 tokens/s`."""
        with self._lock:
            done, tokens = self.done, self.tokens
        return self._describe_rate(done, tokens, self._clock() - self._started)

    def advance(self, n: int = 1, tokens: int = 0) -> None:
        """Count `n` more units as done, and `tokens` more tokens."""
        with self._lock:
            self.done += n
            self.tokens += tokens
        if self._on_advance is not None:
            self._on_advance(n, self.rate)

    def describe(self) -> str:
        """Write the state as one line: `scoring: 30/120 traces, 1.5 traces/s, 0:01:00 left, ...`."""
        with self._lock:
            done, tokens = self.done, self.tokens
        seconds = self._clock() - self._started
        count = f"{done:,}" if self.total is None else f"{done:,}/{self.total:,}"
        parts = [f"{count} {self.unit}"]
        if done or tokens:
            parts.append(self._describe_rate(done, tokens, seconds))
        if done and self.total is not None:
            left = max(self.total - done, 0) * seconds / done
            parts.append(f"{format_duration(left)} left")
        parts.append(f"{format_duration(seconds)} elapsed")
        return f"{self.description}: {', '.join(parts)}"

    def _describe_rate(self, done: int, tokens: int, seconds: float) -> str:
        seconds = max(seconds, 1e-6)
        text = f"{done / seconds:,.1f} {self.unit}/s"
        return f"{text} {tokens / seconds:,.0f} tokens/s" if tokens else text


class Reporter:
    """Shows progress on stderr: bars in a terminal, elsewhere a line every `interval` seconds.

    A step shorter than `interval` prints no line. With `quiet` nothing is shown at all.
    """

    def __init__(
        self, *, quiet: bool = False, interval: float = LINE_SECONDS, clock: Clock = time.monotonic
    ) -> None:
        self.quiet = quiet
        self._interval = interval
        self._clock = clock
        self._terminal = sys.stderr is not None and sys.stderr.isatty()
        self._console = VisibleConsole(stderr=True)
        self._display: Progress | None = None
        self._steps = 0
        self._lock = threading.Lock()

    @contextmanager
    def track(self, description: str, total: int | None, unit: str = "rows") -> Iterator[Task]:
        """Show one step of `total` units (None where unknown) while the block runs; steps may nest."""
        if self.quiet:
            yield Task(description, total, unit, clock=self._clock)
        elif self._terminal:
            with self._show_bar(description, total, unit) as task:
                yield task
        else:
            task = Task(description, total, unit, clock=self._clock)
            with self._count_step(), _print_lines(description, task.describe, self._interval):
                yield task

    @contextmanager
    def watch(self, description: str) -> Iterator[None]:
        """Where stderr is not a terminal, print a line every `interval` seconds while no step does."""
        if self.quiet or self._terminal:
            yield
            return
        started = self._clock()

        def describe() -> str | None:
            elapsed = format_duration(self._clock() - started)
            return None if self._steps else f"{description}: {elapsed} elapsed"

        with _print_lines(description, describe, self._interval):
            yield

    def message(self, text: str) -> None:
        """Print one line on stderr, above the bars, unless quiet."""
        if self.quiet:
            return
        if self._terminal:
            self._console.print(show_block(text))
        else:
            print_note(show_block(text))

    @contextmanager
    def _count_step(self) -> Iterator[None]:
        with self._lock:
            self._steps += 1
        try:
            yield
        finally:
            with self._lock:
                self._steps -= 1

    @contextmanager
    def _show_bar(self, description: str, total: int | None, unit: str) -> Iterator[Task]:
        outer = self._display
        display = outer or Progress(*_make_columns(), console=self._console)
        task_id = display.add_task(show_line(description), total=total, rate="")
        if outer is None:
            display.start()
            self._display = display
        try:
            yield Task(
                description,
                total,
                unit,
                on_advance=lambda n, rate: display.update(task_id, advance=n, rate=rate),
                clock=self._clock,
            )
        finally:
            if outer is None:
                display.stop()
                self._display = None


def format_duration(seconds: float) -> str:
    """Write seconds as hours, minutes and seconds: `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


@contextmanager
def _print_lines(name: str, describe: Callable[[], str | None], interval: float) -> Iterator[None]:
    """Print what `describe` returns every `interval` seconds while the block runs, and never after it."""
    ended = threading.Event()

    def print_until_ended() -> None:
        while not ended.wait(interval):
            text = describe()
            if text is not None and not print_note(text):  # Nobody reads stderr any more.
                return

    thread = threading.Thread(target=print_until_ended, name=f"progress: {name}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


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
