"""Progress bars: on a terminal's stderr, silent elsewhere, nested, with throughput."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys

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
    reporter.say("a [bold] line")
print("data")
"""


def test_nothing_is_shown_where_stderr_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    with reporter.track("step", 2) as outer, reporter.track("inner", None) as inner:
        outer.advance(2, tokens=5)
        inner.advance()
    reporter.say("line")
    assert capfd.readouterr() == ("", "")
    assert (outer.done, outer.tokens, inner.done) == (2, 5, 1)


def test_the_rate_names_its_unit_and_tokens_only_where_there_are_some() -> None:
    task = Task(None, "traces", None)
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
