"""Progress: bars on a terminal, lines in a pipe, nested, with throughput; stdout holds data alone."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import threading
from contextlib import redirect_stderr, suppress
from typing import Self

import pytest

from rlt_data.progress import Reporter, Task

PROGRAM = """
from rlt_data.progress import Reporter
reporter = Reporter()
with reporter.track("outer [red]", 2, "questions") as outer:
    for _ in range(2):
        with reporter.track("inner", None, "traces") as inner:
            inner.advance(3, tokens=40)
        outer.advance(1)
    reporter.message("a [bold] line")
print("data")
"""


# Seconds. A line takes some 40 bytes, so a pipe holds those of half a minute unread.
INTERVAL = 0.02


class Clock:
    """A clock that moves only when the test advances it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class PipedStderr:
    """A real pipe instead of stderr while the block runs."""

    def __enter__(self) -> Self:
        reading, writing = os.pipe()
        self.reading = os.fdopen(reading, encoding="utf-8")
        self._writing = os.fdopen(writing, "w", encoding="utf-8")
        self._redirection = redirect_stderr(self._writing)
        self._redirection.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._redirection.__exit__(None, None, None)
        with suppress(BrokenPipeError):
            self._writing.close()
        self.reading.close()

    def read_line(self) -> str:
        """Wait for the next line."""
        return self.reading.readline().rstrip("\n")

    def read_rest(self) -> list[str]:
        """End the output; return the lines that are left."""
        self._writing.close()
        return self.reading.read().splitlines()


def test_a_step_in_a_pipe_prints_a_line_per_interval_also_when_no_unit_finishes() -> None:
    with PipedStderr() as piped:
        reporter = Reporter(interval=INTERVAL)
        with reporter.track("scoring [red]", 3, "traces") as task:
            assert re.fullmatch(r"scoring \[red\]: 0/3 traces, \d:\d\d:\d\d elapsed", piped.read_line())
            assert "0/3" in piped.read_line()
            task.advance(2, tokens=9)
            while (line := piped.read_line()).startswith("scoring [red]: 0/3"):
                pass
            assert re.match(
                r"scoring \[red\]: 2/3 traces, [\d,.]+ traces/s [\d,]+ tokens/s, \d+:\d\d:\d\d left", line
            )


def test_no_line_follows_the_end_of_a_step_and_no_thread_is_left() -> None:
    with PipedStderr() as piped:
        before = set(threading.enumerate())
        reporter = Reporter(interval=INTERVAL)
        for number in range(20):
            with reporter.track(f"step {number}", None):
                piped.read_line()
            reporter.message(f"end of {number}")
            while (line := piped.read_line()) != f"end of {number}":
                assert line.startswith(f"step {number}:"), "the lines of a step come before its end"
        assert set(threading.enumerate()) == before
        assert piped.read_rest() == []


def test_a_step_that_fails_ends_its_lines_too() -> None:
    with PipedStderr():
        before = set(threading.enumerate())
        with pytest.raises(RuntimeError, match="broken"), Reporter(interval=INTERVAL).track("step", 1):
            raise RuntimeError("broken")
        assert set(threading.enumerate()) == before


def test_nested_steps_print_their_own_lines() -> None:
    with PipedStderr() as piped:
        reporter = Reporter(interval=INTERVAL)
        with reporter.track("outer", 2) as outer, reporter.track("inner", None, "traces"):
            outer.advance()
            seen: set[str] = set()
            while seen != {"outer", "inner"}:
                seen.add(piped.read_line().split(":")[0])


def test_a_stage_prints_lines_also_between_its_steps() -> None:
    with PipedStderr() as piped:
        reporter = Reporter(interval=INTERVAL)
        with reporter.watch("score"):
            assert re.fullmatch(r"score: \d:\d\d:\d\d elapsed", piped.read_line())
            with reporter.track("step", 3):
                while piped.read_line().startswith("score: "):
                    pass
                # One line of the stage may have been made before the step began.
                assert [piped.read_line().split(":")[0] for _ in range(5)].count("step") >= 4
            while not piped.read_line().startswith("score: "):
                pass
        assert not any(thread.name.startswith("progress: ") for thread in threading.enumerate())


def test_a_step_shorter_than_the_interval_prints_nothing() -> None:
    with PipedStderr() as piped:
        reporter = Reporter()
        with reporter.track("step", 2) as outer, reporter.track("inner", None) as inner:
            outer.advance(2, tokens=5)
            inner.advance()
        assert (outer.done, outer.tokens, inner.done) == (2, 5, 1)
        assert piped.read_rest() == []


def test_messages_are_printed_in_a_pipe_as_they_are() -> None:
    with PipedStderr() as piped:
        text = "estimate: [bold] " + "long " * 60
        Reporter().message(text)
        assert piped.read_rest() == [text]


def test_quiet_shows_nothing() -> None:
    with PipedStderr() as piped:
        reporter = Reporter(quiet=True, interval=INTERVAL)
        before = set(threading.enumerate())
        with reporter.track("step", 2) as task:
            assert set(threading.enumerate()) == before
            task.advance()
        reporter.message("text")
        assert piped.read_rest() == []


def test_a_closed_stderr_does_not_stop_the_step() -> None:
    with PipedStderr() as piped:
        reporter = Reporter(interval=INTERVAL)
        with reporter.track("step", 1) as task:
            piped.read_line()
            piped.reading.close()
            for thread in threading.enumerate():
                if thread.name == "progress: step":
                    thread.join()
            task.advance()
        assert task.done == 1


def test_a_line_has_count_rate_time_left_and_time_elapsed() -> None:
    clock = Clock()
    task = Task("scoring", 1200, "traces", clock=clock)
    clock.now = 3700.4
    assert task.describe() == "scoring: 0/1,200 traces, 1:01:40 elapsed"
    task.advance(600)
    assert task.describe() == "scoring: 600/1,200 traces, 0.2 traces/s, 1:01:40 left, 1:01:40 elapsed"
    task.advance(700, tokens=74008)
    assert task.describe() == (
        "scoring: 1,300/1,200 traces, 0.4 traces/s 20 tokens/s, 0:00:00 left, 1:01:40 elapsed"
    )
    endless = Task("reading", None, clock=clock)
    clock.now += 10
    endless.advance(20)
    assert endless.describe() == "reading: 20 rows, 2.0 rows/s, 0:00:10 elapsed"


def test_threads_may_advance_one_task() -> None:
    task = Task()
    threads = [
        threading.Thread(target=lambda: [task.advance(1, tokens=2) for _ in range(2000)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (task.done, task.tokens) == (8000, 16000)


def test_the_rate_names_its_unit_and_tokens_only_where_there_are_some() -> None:
    task = Task(unit="traces")
    task.advance(2)
    assert task.rate.endswith(" traces/s")
    task.advance(1, tokens=7)
    assert task.rate.endswith(" tokens/s")


def test_a_terminal_shows_bars_and_stdout_holds_data_alone() -> None:
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdout=subprocess.PIPE,
        stderr=end,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(end)
    shown = b""
    while True:
        ready, _, _ = select.select([terminal], [], [], 30)
        assert ready, "the program shows nothing"
        try:
            part = os.read(terminal, 65536)
        except OSError:  # The other end is closed.
            break
        if not part:
            break
        shown += part
    output, _ = process.communicate(timeout=30)
    os.close(terminal)
    assert process.returncode == 0
    assert output == b"data\n"
    text = shown.decode()
    for expected in ("outer [red]", "2/2", "questions/s", "inner", "traces/s", "tokens/s", "a [bold] line"):
        assert expected in text


HOSTILE = """
from rlt_data.progress import Reporter
from rlt_data.training.common.progress_table import ProgressTable
bad = "\\x1b[35;7mx\\x1b]52;c;aGk=\\x07\\x9b2J\\u202ey"
reporter = Reporter()
with reporter.track(bad, 1, bad) as task:
    reporter.message(bad + "\\n  do: this")
    task.advance(1)
table = ProgressTable(bad, 2)
table.warn(bad)
table._console.print(table._draw(1, {"loss": 1.0}, "pace"))
"""


def test_text_of_any_kind_acts_neither_on_a_terminal_nor_in_a_pipe() -> None:
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", HOSTILE], stderr=end, env={**os.environ, "TERM": "xterm"}
    )
    os.close(end)
    shown = b""
    with suppress(OSError):  # The other end is closed.
        while part := os.read(terminal, 65536):
            shown += part
    os.close(terminal)
    assert process.wait() == 0
    done = subprocess.run([sys.executable, "-c", HOSTILE], capture_output=True, check=True)
    for text in (shown.decode(), done.stderr.decode()):
        for acting in ("\x1b[35", "\x1b]", "\x07", "\x9b", "\u202e"):
            assert acting not in text
        assert r"\x1b[35;7mx\x1b]52;c;aGk=\x07\x9b2J\u202ey" in text
    assert "\n    do: this" in done.stderr.decode()
