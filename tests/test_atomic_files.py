"""Files that appear whole: writers of one path take turns, and only files and directories are replaced."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from rlt_data.atomic_files import lock_target, name_draft, write_aside
from rlt_data.errors import UsageError

WRITER = """
    import sys
    from pathlib import Path
    from rlt_data.atomic_files import write_aside

    target, text, directory = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "directory"
    with write_aside(target, lambda process: print("waits for", process, flush=True)) as draft:
        if directory:
            draft.mkdir()
        (draft / "file" if directory else draft).write_text(text)
        print("writes", flush=True)
        sys.stdin.read()
"""


class Writer:
    """A process that writes `text` to `target`, and is not done before `finish` is called."""

    def __init__(self, target: Path, text: str, kind: str = "file") -> None:
        command = [sys.executable, "-c", textwrap.dedent(WRITER), str(target), text, kind]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def read_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def finish(self) -> None:
        _, errors = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, errors


def write(target: Path, make: Callable[[Path], None]) -> None:
    with write_aside(target) as draft:
        make(draft)


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_two_processes_that_write_one_path_take_turns(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    first = Writer(target, "first", kind)
    assert first.read_line() == "writes"
    second = Writer(target, "second", kind)
    assert second.read_line() == f"waits for {first.process.pid}"
    first.finish()
    assert second.read_line() == "writes"
    assert (target / "file" if kind == "directory" else target).read_text() == "first"
    second.finish()
    assert (target / "file" if kind == "directory" else target).read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_left_is_cleaned_and_its_turn_is_over(tmp_path: Path) -> None:
    target = tmp_path / "out"
    killed = Writer(target, "half", "directory")
    assert killed.read_line() == "writes"
    killed.process.send_signal(signal.SIGKILL)
    killed.process.communicate(timeout=60)
    assert name_draft(target).exists()
    with write_aside(target) as draft:
        draft.write_text("whole")
    assert target.read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            # The name of a socket may be no longer than about 100 characters.
            server.bind(f"/proc/self/fd/{folder}/{path.name}")
        finally:
            os.close(folder)


def make_link(path: Path) -> None:
    path.with_name("elsewhere").write_text("mine")
    path.symlink_to("elsewhere")


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def make_device(path: Path) -> None:
    try:
        os.mknod(path, 0o20600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")


@pytest.mark.parametrize("make", [make_pipe, make_socket, make_link, make_dangling_link, make_device])
def test_what_is_neither_file_nor_directory_is_never_replaced(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    target = tmp_path / "out"
    make(target)
    before = target.lstat()
    with pytest.raises(UsageError, match="is not replaced"):
        write(target, Path.touch)
    assert os.path.samestat(before, target.lstat())
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("directory", [True, False])
def test_a_file_replaces_no_directory_nor_the_other_way_round(tmp_path: Path, directory: bool) -> None:
    target = tmp_path / "out"
    if directory:
        target.mkdir()
        (target / "mine").touch()
    else:
        target.touch()
    with pytest.raises(UsageError, match="is not replaced"):
        write(target, Path.touch if directory else Path.mkdir)
    assert target.is_dir() == directory


def test_a_path_that_became_a_link_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "out"

    def write_and_link(draft: Path) -> None:
        draft.write_text("new")
        target.symlink_to("nowhere")

    with pytest.raises(UsageError, match="symbolic link"):
        write(target, write_and_link)
    assert target.is_symlink()


@pytest.mark.parametrize("kind", ["a named pipe", "a symbolic link", "a directory"])
def test_something_else_at_the_path_of_the_lock_is_named(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    with lock_target(target):
        (lock,) = tmp_path.iterdir()
    match kind:
        case "a named pipe":
            os.mkfifo(lock)
        case "a symbolic link":
            lock.symlink_to("elsewhere")
        case _:
            lock.mkdir()
    with pytest.raises(UsageError, match=f"the path is {kind} and is not replaced"), write_aside(target):
        raise AssertionError("the lock was taken")
    assert os.path.lexists(lock)
