"""Report a failed command to the user: what happened, where, and what to do; never a traceback."""

from __future__ import annotations

import errno
import io
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
from rlt_data.terminal import StdoutClosedError, StdoutError, print_note, show_block, show_line

from .streams import silence_stdout

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
        errno.EFBIG,
        errno.EIO,
        errno.ELOOP,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENXIO,
    }
)


def report_failure(error: BaseException) -> int:
    """Print `error` on stderr and return the exit code of the program.

    With RLT_DATA_DEBUG=1, the traceback of an unexpected error is printed.
    """
    if isinstance(error, StdoutClosedError | StdoutError):
        silence_stdout()
    if isinstance(error, RltDataError):
        print_note(f"error: {show_error(error)}")
        return error.exit_code
    if isinstance(error, TyperException):
        _print_usage_error(error)
        return error.exit_code
    if isinstance(error, (KeyboardInterrupt, Abort)):
        print_note("\ninterrupted: run the same command again to resume")
        return 130
    if isinstance(error, StdoutClosedError):
        return 0
    if os.environ.get("RLT_DATA_DEBUG", "") not in ("", "0"):
        print_note("".join(traceback.format_exception(error)))
        return 1
    if type(error).__name__ == "PanicException":  # of delta-rs or Polars, each of which has its own class
        print_note(f"error: a library for tables stopped: {show_line(error)}")
        print_note("  do:    check the disk, its permissions and this machine's clock, then run it again")
        return 1
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        part = error.object[max(error.start - 60, 0) : error.end + 60]
        print_note(f"error: a path or text is not valid UTF-8\n  where: {show_line(part)}")
        print_note("  do:    rename the file or folder, or correct the text")
        return 1
    # Some libraries raise these two without an errno.
    if isinstance(error, FileNotFoundError | PermissionError) or (
        isinstance(error, OSError) and error.errno in _FILE_ERRORS
    ):
        where = f"\n  where: {show_line(error.filename)}" if error.filename is not None else ""
        print_note(f"error: {show_line(error.strerror or error)}{where}")
        print_note("  do:    check the path, its permissions and the free space")
        return 1
    first_line = (str(error).strip().splitlines() or ["no message"])[0]
    log = _write_traceback(error)
    print_note(f"error: unexpected {type(error).__name__}: {show_line(first_line)}")
    print_note(f"  where: the traceback is in {log}")
    print_note("  do:    this is a defect of rlt-data; please report it with that file")
    return 1


def show_error(error: RltDataError) -> str:
    """Show what happened, where, and what to do, with control characters as text."""
    parts = [show_block(error.what)]
    if error.where:
        parts.append(f"  where: {show_line(error.where)}")
    if error.remedy:
        parts.append(f"  do:    {show_block(error.remedy)}")
    return "\n".join(parts)


def _print_usage_error(error: TyperException) -> None:
    show = getattr(error, "show", None)
    if show is None:
        print_note(f"error: {error}")
        return
    shown = io.StringIO()
    show(file=shown)
    if shown.getvalue():  # Without arguments, the help has been printed already.
        print_note(shown.getvalue(), end="")


def _write_traceback(error: BaseException) -> Path:
    """Write the traceback into the open local lake if possible, otherwise into the temporary folder."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    name = f"rlt-data-{stamp}-{os.getpid()}.log"
    data = "".join(traceback.format_exception(error)).encode("utf-8", "backslashreplace")
    common = sys.modules.get(f"{__package__}.common")
    lake = common.find_opened_lake() if common else None
    if lake is not None and lake.local:
        with suppress(OSError):
            folder = Path(lake.uri) / "_rlt_data" / "errors"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
            return folder / name
    path = Path(tempfile.gettempdir()) / name
    path.write_bytes(data)
    return path
