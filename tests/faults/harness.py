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
from itertools import cycle
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal

from rlt_data.lake import Lake


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


def watch_table(lake: Lake, table: str, commits: Sequence[int] = (1,)) -> Callable[[], bool]:
    """Make an `at_work` for a table of a local lake: true once so many commits with rows have come.

    The first start waits for the first number of `commits`, the next one for the second, and so on around.
    """
    folder = Path(lake.table(table).uri)
    waits = cycle(commits)
    wanted: int | None = None

    def has_grown() -> bool:
        nonlocal wanted
        files = len(list(folder.glob("*.parquet")))
        if wanted is None:
            wanted = files + next(waits)
        if files < wanted:
            return False
        wanted = None
        return True

    return has_grown


def read_rows(lake: Lake, table: str) -> pl.DataFrame:
    """Read all rows of a table in the order of their keys: what two equal tables have in common."""
    return lake.table(table).scan().sort(lake.table(table).schema.key).collect()


def assert_equal_lakes(one: Lake, other: Lake, *, tolerance: float = 0.0) -> None:
    """Assert that two lakes hold the same rows in every table but `runs`, which records their histories.

    Floating-point numbers may differ by `tolerance`, for models whose batches were cut differently.
    """
    for table in one.tables():
        if table.name != "runs":
            assert_frame_equal(
                read_rows(one, table.name),
                read_rows(other, table.name),
                check_exact=tolerance == 0.0,
                rel_tol=0.0,
                abs_tol=tolerance,
            )


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
