"""A read-only lake, a full disk and a clock before 1970: one plain message, without panics or tracebacks."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from command_line import Done, QuickProgram, find_program

CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, now);
    if (id == CLOCK_REALTIME) now->tv_sec -= 3000000000L;
    return code;
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A lake with one question, and a file with another."""
    for number in (1, 2):
        line = f'{{"question": "1 + {number}?", "solution": "{1 + number}"}}\n'
        (tmp_path / f"{number}.jsonl").write_text(line, encoding="utf-8")
    QuickProgram(tmp_path).succeed("ingest", "1.jsonl")
    QuickProgram(tmp_path).succeed("ingest", "1.jsonl", "--force")
    return tmp_path


def run(folder: Path, script: str, *arguments: str, **env: str) -> Done:
    """Run `script` in bash, with the program and its arguments as "$@"; only it sees what it mounts."""
    isolated = [] if os.geteuid() else ["unshare", "--mount"]
    return subprocess.run(
        [*isolated, "bash", "-ec", script, "bash", find_program(), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | env,
        check=False,
    )


def can_mount(folder: Path) -> bool:
    return (
        bool(shutil.which("unshare"))
        and os.geteuid() == 0
        and not run(folder, "mkdir -p tried && mount -t tmpfs tmpfs tried").returncode
    )


def check(done: Done, *messages: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) <= 3, done.stderr
    assert any(message in done.stderr for message in messages), done.stderr
    for wrong in ("panicked", "Traceback", "RUST_BACKTRACE", "stack backtrace", "defect of rlt-data"):
        assert wrong not in done.stderr


WRITING = [["ingest", "2.jsonl", "-q"], ["vacuum", "--apply"]]


@pytest.mark.parametrize("arguments", WRITING, ids=" ".join)
def test_a_lake_that_is_read_only(folder: Path, arguments: list[str]):
    if can_mount(folder):
        done = run(folder, 'mount --bind lake lake && mount -o remount,ro,bind lake && "$@"', *arguments)
        check(done, "Read-only file system")
    elif os.geteuid():
        done = run(
            folder, 'chmod -R a-w lake; "$@" && code=0 || code=$?; chmod -R u+w lake; exit $code', *arguments
        )
        check(done, "Permission denied")
    else:
        pytest.skip("nothing can be made read-only here")


FILL = """
mkdir -p full && mount -t tmpfs -o size=2m tmpfs full && cp -r lake full
dd if=/dev/zero of=full/fill bs=4k 2>/dev/null || true
"$@"
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["ingest", "2.jsonl", "-q", "--lake", "full/lake"],
        ["ingest", "2.jsonl", "-q", "--lake", "full/new"],
        ["vacuum", "--apply", "--lake", "full/lake"],
        ["sql", "select * from range(100000)", "-f", "csv", "-o", "full/out.csv"],
        ["sql", "select * from range(100000)", "-f", "parquet", "-o", "full/out.parquet"],
    ],
    ids=" ".join,
)
def test_a_full_disk(folder: Path, arguments: list[str]):
    if not can_mount(folder):
        pytest.skip("no small file system can be mounted here")
    check(run(folder, FILL, *arguments), "No space left on device", "os error 28")


@pytest.mark.parametrize("format", ["csv", "json", "parquet"])
def test_a_file_that_may_not_grow(folder: Path, format: str):
    done = run(
        folder,
        'ulimit -f 100; "$@"',
        "sql",
        "select md5(range::text) from range(100000)",
        "-f",
        format,
        "-o",
        "out",
    )
    check(done, "File too large")
    assert "where: out\n" in done.stderr
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    "arguments", [*WRITING, ["ingest", "2.jsonl", "--lake", "new"], ["vacuum"]], ids=" ".join
)
def test_a_clock_before_1970(folder: Path, arguments: list[str]):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for a library that sets the clock back")
    (folder / "clock.c").write_text(CLOCK, encoding="utf-8")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", "clock.so", "clock.c", "-ldl"], cwd=folder, check=True
    )
    script = 'LD_PRELOAD="$PWD/clock.so" "$@"'
    check(run(folder, script, *arguments), "the clock of this machine is before 1970: 19")
    assert run(folder, script, "sql", "select count(*) from questions").returncode == 0


def test_hours_have_a_range(folder: Path):
    quick = QuickProgram(folder)
    for option in ("--retention-hours", "--pinned-hours"):
        assert "1,000,000" in quick.fail(2, "vacuum", option, "99999999999999")
        quick.succeed("vacuum", option, "1000000")
