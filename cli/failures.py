"""Report a failed command to the user: what happened, where, and what to do; never a traceback."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import traceback
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from typer import Abort
from typer.exceptions import TyperException

from rlt_data.errors import RltDataError

# Errors of the file system that the user can resolve; any other is a defect of this program.
_FILE_ERRORS = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.ENAMETOOLONG,
    }
)


def report_failure(error: BaseException) -> int:
    """Print `error` on stderr and return the exit code of the program.

    With RLT_DATA_DEBUG=1, an unexpected error is raised again, so that its traceback is shown.
    """
    if isinstance(error, RltDataError):
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, TyperException):
        show = getattr(error, "show", None)
        if show is None:
            print(f"error: {error}", file=sys.stderr)
        else:
            show()
        return error.exit_code
    if isinstance(error, (KeyboardInterrupt, Abort)):
        print("\ninterrupted: run the same command again to resume", file=sys.stderr)
        return 130
    if isinstance(error, BrokenPipeError):
        _silence_stdout()
        return 0
    if os.environ.get("RLT_DATA_DEBUG", "") not in ("", "0"):
        raise error
    # Some libraries raise these two without an errno.
    if isinstance(error, FileNotFoundError | PermissionError) or (
        isinstance(error, OSError) and error.errno in _FILE_ERRORS
    ):
        where = f"\n  where: {error.filename}" if error.filename is not None else ""
        print(f"error: {error.strerror or error}{where}", file=sys.stderr)
        print("  do:    check the path, its permissions and the free space", file=sys.stderr)
        return 1
    first_line = (str(error).strip().splitlines() or ["no message"])[0]
    log = _write_traceback(error)
    print(f"error: unexpected {type(error).__name__}: {first_line}", file=sys.stderr)
    print(f"  where: the traceback is in {log}", file=sys.stderr)
    print("  do:    this is a defect of rlt-data; please report it with that file", file=sys.stderr)
    return 1


def _silence_stdout() -> None:
    # The reader has closed the pipe: without this the interpreter's last flush would print an error.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _write_traceback(error: BaseException) -> Path:
    """Write the traceback into the open local lake if possible, otherwise into the temporary folder."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    name = f"rlt-data-{stamp}-{os.getpid()}.log"
    text = "".join(traceback.format_exception(error))
    common = sys.modules.get(f"{__package__}.common")
    lake = common.find_opened_lake() if common else None
    if lake is not None and lake.local:
        with suppress(OSError):
            folder = Path(lake.uri) / "_rlt_data" / "errors"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
            return folder / name
    path = Path(tempfile.gettempdir()) / name
    path.write_text(text, encoding="utf-8")
    return path
