"""Kill a command at chosen moments and run it again, until it is done.

`run_killed` starts a real process in a process group of its own, ends the whole group with SIGKILL after
each delay, starts the same command again, and lets the last one finish. What the command left behind can
then be compared with what an uninterrupted one leaves.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlt_data.lake import Lake

# What tells two histories of the same work apart without being a difference: who wrote when, and how often.
BOOKKEEPING = frozenset({"runs"})


@dataclass(frozen=True)
class KilledRun:
    """What happened: `kills` processes were killed at work, and the last one's output."""

    kills: int
    stdout: str
    stderr: str


def run_killed(
    command: Sequence[str],
    delays: Sequence[float],
    *,
    at_work: Callable[[], bool] = lambda: True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 120.0,
) -> KilledRun:
    """Start `command` once per delay and SIGKILL it; then run it to its end, which must be a success.

    A delay counts in seconds from when `at_work` first answers true after the start, so that kills do not
    all fall into imports. A process that ends before its kill must have succeeded, and counts as no kill.
    Raises `AssertionError` with the command's stderr where it fails, `TimeoutError` after `timeout` seconds.
    """
    kills = 0
    for delay in delays:
        process = _start(command, env, cwd)
        deadline = time.monotonic() + timeout
        while process.poll() is None and not at_work():
            if time.monotonic() > deadline:
                _kill(process)
                raise TimeoutError(f"{command[0]} was not at work within {timeout:.0f} s")
            time.sleep(0.002)
        try:
            _, errors = process.communicate(timeout=delay)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.communicate()
            kills += 1
        else:
            assert process.returncode == 0, errors
    process = _start(command, env, cwd)
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _kill(process)
        raise
    assert process.returncode == 0, errors
    return KilledRun(kills, output, errors)


def draw_delays(seed: int, kills: int, longest: float) -> list[float]:
    """Draw `kills` delays between 0 and `longest` seconds; the same seed draws the same."""
    generator = random.Random(seed)
    return [generator.uniform(0.0, longest) for _ in range(kills)]


def watch_table(lake: Lake, table: str) -> Callable[[], bool]:
    """Make an `at_work` for a table of a local lake: true once a commit has come since the last start."""
    log = Path(lake.table(table).uri) / "_delta_log"
    seen = -1

    def has_grown() -> bool:
        nonlocal seen
        commits = len(list(log.glob("*.json"))) if log.is_dir() else 0
        if seen < 0:
            seen = commits
            return False
        if commits > seen:
            seen = -1
            return True
        return False

    return has_grown


def read_rows(lake: Lake, table: str) -> list[dict[str, object]]:
    """Read all rows of a table in the order of their keys: what two equal tables have in common."""
    key = lake.table(table).schema.key
    return lake.table(table).scan().sort(key).collect().to_dicts()


def assert_equal_lakes(one: Lake, other: Lake, *, ignore: frozenset[str] = BOOKKEEPING) -> None:
    """Assert that two lakes hold the same rows in every table that is not ignored."""
    for table in one.tables():
        if table.name not in ignore:
            assert read_rows(one, table.name) == read_rows(other, table.name), table.name


def make_command(script: str, *arguments: str) -> list[str]:
    """Make the command that runs Python source in a fresh interpreter."""
    return [sys.executable, "-c", script, *arguments]


def _start(command: Sequence[str], env: Mapping[str, str] | None, cwd: Path | None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        list(command),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        cwd=cwd,
        start_new_session=True,
    )


def _kill(process: subprocess.Popen[str]) -> None:
    """End the process and all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
