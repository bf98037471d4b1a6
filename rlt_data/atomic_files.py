"""Files and directories that are written atomically and identified by their content."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from rlt_data.errors import UsageError
from rlt_data.hashing import hash_content, hash_file

WAIT_SECONDS = 0.2
"""Interval at which a process checks whether the lock is free."""

OnWait = Callable[[str], None]

_KINDS: Mapping[str, Callable[[int], bool]] = {
    "a file": stat.S_ISREG,
    "a directory": stat.S_ISDIR,
    "a symbolic link": stat.S_ISLNK,
    "a named pipe": stat.S_ISFIFO,
    "a socket": stat.S_ISSOCK,
    "a device": lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode),
}


def hash_files(target: Path, name: str | None = None) -> dict[str, str]:
    """Map the relative path of each file of a directory, or `name` for one file, to its content hash."""
    if target.is_file():
        return {name or target.name: hash_file(target)}
    return {file.relative_to(target).as_posix(): hash_file(file) for file in _list_files(target)}


def is_intact(target: Path, files: Mapping[str, str]) -> bool:
    """Whether the files of a finished export exist unchanged; other files beside them are ignored."""
    folder = target if target.is_dir() else target.parent
    paths = [(folder / name, digest) for name, digest in files.items()]
    return bool(paths) and all(path.is_file() and hash_file(path) == digest for path, digest in paths)


@contextmanager
def write_aside(target: Path, on_wait: OnWait | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `target`, which replaces it when the block ends without an error.

    Processes that write the same target take turns (see `lock_target`). Only a regular file is replaced by a
    file, and only a directory by a directory: raises `UsageError` for devices, links and the like.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    check_kind(target)
    with lock_target(target, on_wait):
        draft, old = name_draft(target), _name_beside(target, "replaced")
        if os.path.lexists(old) and not os.path.lexists(target):
            old.rename(target)
        for left_over in (draft, old):
            remove(left_over)
        try:
            yield draft
            _flush_to_disk(draft)
            check_kind(target, directory=draft.is_dir())
            replace(draft, target)
        finally:
            remove(draft)


def replace(draft: Path, target: Path) -> None:
    """Move `draft` to `target`, whole or not at all; the caller holds the target's lock."""
    old = _name_beside(target, "replaced")
    try:
        if target.is_dir() and not target.is_symlink():
            # A directory cannot be replaced in one step: the old one is put back if the second step fails.
            target.rename(old)
        draft.rename(target)
        _flush_directory(target.parent)
    finally:
        if os.path.lexists(old) and not os.path.lexists(target):
            old.rename(target)
        remove(old)


def check_utf8(path: str | Path, what: str) -> None:
    """Raise `UsageError` where a path, named by `what`, is not valid UTF-8: it cannot be stored as text."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{what} is not valid UTF-8", where=str(path), remedy="rename the folder, or use another"
        ) from error


def name_kind(mode: int) -> str:
    """Name what a path is by the mode that `stat` returns, such as `a named pipe`."""
    return next((name for name, test in _KINDS.items() if test(mode)), "a special file")


def check_kind(target: Path, *, directory: bool | None = None) -> None:
    """Raise `UsageError` where `target` is something that is never replaced.

    Absent targets, regular files and directories pass; `directory` requires one of the two.
    """
    try:
        mode = target.lstat().st_mode
    except FileNotFoundError:
        return
    kind = name_kind(mode)
    allowed = {None: ("a file", "a directory"), False: ("a file",), True: ("a directory",)}[directory]
    if kind not in allowed:
        raise UsageError(
            f"the path is {kind} and is not replaced",
            where=str(target),
            remedy=f"name another path; only {' or '.join(allowed)} is ever replaced",
        )


def name_draft(target: Path) -> Path:
    """Return the path at which `write_aside` lets the next content of `target` be written."""
    return _name_beside(target, "partial")


@contextmanager
def lock_target(target: Path, on_wait: OnWait | None = None) -> Iterator[None]:
    """Hold the exclusive right to replace `target` while the block runs; another process's turn is awaited.

    `on_wait` is called once with the id of the process that is waited for, where it is known. The right
    ends with the process that holds it, also where that process is killed.
    """
    path = _name_beside(target, "lock")
    handle = _acquire(path, on_wait)
    try:
        yield
    finally:
        # Removed while it is held: a process that opened it meanwhile finds that the file has changed.
        path.unlink(missing_ok=True)
        os.close(handle)


def _acquire(path: Path, on_wait: OnWait | None) -> int:
    while True:
        handle = _open_lock(path)
        try:
            if _try_lock(handle) and _is_same_file(handle, path):
                os.ftruncate(handle, 0)
                os.write(handle, str(os.getpid()).encode())
                return handle
            owner = os.pread(handle, 20, 0).decode("ascii", "replace")
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if on_wait is not None and owner:
            on_wait(owner)
            on_wait = None
        time.sleep(WAIT_SECONDS)


def _open_lock(path: Path) -> int:
    """Open the file of a lock. Raises `UsageError` where something else is at its path."""
    try:
        # A named pipe would wait for its other end.
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    except OSError:
        check_kind(path, directory=False)
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        check_kind(path, directory=False)
    return handle


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # A file system without locks: one process at a time is up to the user.
    return True


def _is_same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _name_beside(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name}.{hash_content(str(target))[:8]}.{suffix}")


def remove(path: Path) -> None:
    """Remove a file, a link or a directory with its content; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush_to_disk(path: Path) -> None:
    for file in _list_files(path):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


def _flush_directory(folder: Path) -> None:
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _list_files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
