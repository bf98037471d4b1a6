"""The streams of the program: closed ones, their encodings, readers that leave, and native output."""

from __future__ import annotations

import io
import os
import re
import secrets
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from rlt_data.errors import UsageError
from rlt_data.terminal import CheckedStdout, VisibleStderr, make_visible

_PANIC = re.compile(rb"thread '.*' (?:\(\d+\) )?panicked at ")
# A report of a panic ends with this line. Without it, this many lines belong to the report at most.
_PANIC_END = b"note: "
_PANIC_LINES = 100


@contextmanager
def own_streams() -> Iterator[None]:
    """Make the three streams usable while the block runs: text of any kind can be printed to them.

    A closed stdin is empty, and what is printed to a closed stderr is lost. `check_stdout` refuses a closed
    stdout. Streams that a caller has replaced stay as they are.
    """
    for descriptor in (0, 1, 2):
        _reserve(descriptor)
    before = sys.stdin, sys.stdout, sys.stderr
    with ExitStack() as stack:
        if sys.stdin is None:
            sys.stdin = stack.enter_context(open(os.devnull, encoding="utf-8"))  # noqa: PTH123
        if _is_own(sys.stderr, 2):
            native = NativeStderr()
            native.start()
            stack.callback(native.stop)
            sys.stderr = VisibleStderr(native.open_stderr(), before[2].encoding)
        elif sys.stderr is None:
            sys.stderr = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123
        if _is_own(sys.stdout, 1):
            sys.stdout.flush()
            encoding, lines = sys.stdout.encoding, sys.stdout.isatty()
            sys.stdout = CheckedStdout(
                sys.stdout.buffer, encoding, errors="backslashreplace", line_buffering=lines
            )
        own = sys.stdout, sys.stderr
        try:
            yield
        finally:
            sys.stdin, sys.stdout, sys.stderr = before
            if own[1] is not before[1] and isinstance(own[1], VisibleStderr):
                with suppress(OSError, ValueError):
                    own[1].flush()
            if isinstance(own[0], CheckedStdout):
                # Otherwise the buffer, which the caller's stdout shares, would be closed with it.
                with suppress(Exception):
                    own[0].detach()


def check_stdout() -> None:
    """Raise `UsageError` where stdout is closed: what a command prints would be lost."""
    if sys.stdout is None:
        raise UsageError("stdout is closed", remedy="redirect it, as in > /dev/null")


def silence_stdout() -> None:
    """Discard what is buffered and still printed: nobody reads stdout, or it cannot be written."""
    with suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


class NativeStderr:
    """Reads what native libraries write to descriptor 2, and passes it on to stderr line by line.

    Rust libraries report a panic there before they raise the error that the command explains: these reports
    are left out. Control characters in the other lines are shown as text. Python's own stderr does not pass
    here: it writes to a duplicate of the descriptor, from `open_stderr`.
    """

    def __init__(self) -> None:
        self._stderr = os.dup(2)
        self._end = b"end of stderr " + secrets.token_hex(16).encode()
        self._thread = threading.Thread(target=self._pass_on, name="native stderr", daemon=True)
        self._reading = -1
        self._skipped = 0
        self._blank = False

    def open_stderr(self) -> io.BufferedWriter:
        """Open a stream that writes to the real stderr."""
        return io.BufferedWriter(io.FileIO(os.dup(self._stderr), "w"))

    def start(self) -> None:
        """Take descriptor 2."""
        self._reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.close(writing)
        self._thread.start()

    def stop(self) -> None:
        """Pass on what was written so far, and give descriptor 2 back."""
        os.write(2, b"\n" + self._end + b"\n")
        self._thread.join()
        os.dup2(self._stderr, 2)
        os.close(self._stderr)
        os.close(self._reading)

    def _pass_on(self) -> None:
        line = b""
        while True:
            part = os.read(self._reading, 65536)
            if not part:
                return
            *lines, line = (line + part).split(b"\n")
            for whole in lines:
                if whole == self._end:
                    return
                self._handle(whole)

    def _handle(self, line: bytes) -> None:
        if _PANIC.match(line):
            self._skipped, self._blank = 1, False
        elif self._skipped:
            ended = line.startswith(_PANIC_END) or self._skipped == _PANIC_LINES
            self._skipped = 0 if ended else self._skipped + 1
        else:
            # An empty line is held back: a report of a panic begins with one, and so does the end.
            held, self._blank = self._blank, not line
            self._write(b"\n" * held + (line + b"\n" if line else b""))

    def _write(self, data: bytes) -> None:
        if not data:
            return
        text = make_visible(data.decode("utf-8", "backslashreplace"), keep="\n\r\t")
        with suppress(OSError):
            os.write(self._stderr, text.encode("utf-8", "backslashreplace"))


def _reserve(descriptor: int) -> None:
    """Open /dev/null as `descriptor` where it is closed: the next file would have its number otherwise."""
    try:
        os.fstat(descriptor)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)


def _is_own(stream: object, descriptor: int) -> bool:
    """Whether `stream` is the interpreter's own one for `descriptor`, not one that replaced it."""
    own = sys.__stdout__ if descriptor == 1 else sys.__stderr__
    if own is None or stream is not own:
        return False
    try:
        return own.fileno() == descriptor
    except (OSError, ValueError):
        return False
