"""Render each chat template in a child process with limits before this process renders it.

A template is a program from elsewhere: its sandbox keeps it from files and code, but not from looping for
ever or filling the memory, and nothing inside a process stops that. Each rendering (a template with its
messages and variables) is tried once in a process.
"""

from __future__ import annotations

import atexit
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from rlt_data.errors import ModelError

CPU_SECONDS = 5
MEMORY_BYTES = 512 * 2**20
WALL_SECONDS = 120.0
"""A second limit, where the system has none on processor time or the machine is very busy."""

_CHILD = Path(__file__).with_name("template_child.py")
_PROBLEMS = {
    "time": f"takes more than {CPU_SECONDS} s of processor time for three short messages",
    "memory": f"takes more than {MEMORY_BYTES >> 20} MiB of memory for three short messages",
    "long": "writes more than a million characters for three short messages",
    "random": "draws random numbers, so that no two texts would be rendered alike",
    "crash": "ends the process that renders it",
}


class TemplateGuard:
    """Tries renderings in a child process, which is started with the first and ended with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._tried: dict[str, str | None] = {}

    def find_problem(
        self,
        template: str,
        messages: Sequence[Mapping[str, str]],
        variables: Mapping[str, Any],
        date: datetime,
    ) -> str | None:
        """Return what a rendering does beyond its limits, as the end of a sentence; None where it is safe.

        `variables` are the texts and switches that the template sees besides the messages. A rendering that
        merely fails is safe: it fails in the same way here. Raises `ModelError` where no child can start.
        """
        request = json.dumps(
            {
                "template": template,
                "messages": list(messages),
                "variables": dict(variables),
                "date": date.isoformat(),
            }
        )
        with self._lock:
            if request not in self._tried:
                self._tried[request] = _PROBLEMS.get(self._try(request))
            return self._tried[request]

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is None or self._owner != os.getpid():
            return
        child.kill()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                stream.close()
        child.wait()

    def _try(self, request: str) -> str:
        """Return the outcome of one rendering; `time` and `crash` end the child."""
        child = self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        line: bytes | None = None
        with suppress(BrokenPipeError):
            child.stdin.write(request.encode() + b"\n")
            child.stdin.flush()
            line = _read_line(child.stdout.fileno(), WALL_SECONDS)
        if line is not None:
            return str(json.loads(line)["outcome"])
        with suppress(subprocess.TimeoutExpired):
            # Its output is closed, so it has ended or is ending, unless it ran out of time.
            child.wait(timeout=5.0)
        code = child.returncode
        self.close()
        return "time" if code is None or -code == getattr(signal, "SIGXCPU", 0) else "crash"

    def _start(self) -> subprocess.Popen[bytes]:
        # After a fork the child belongs to the other process.
        if self._child is None or self._owner != os.getpid() or self._child.poll() is not None:
            self.close()
            command = [sys.executable, "-P", str(_CHILD), str(CPU_SECONDS), str(MEMORY_BYTES)]
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            self._owner = os.getpid()
            assert self._child.stdout is not None
            if _read_line(self._child.stdout.fileno(), WALL_SECONDS) is None:
                self.close()
                raise ModelError(
                    "the process that tries chat templates cannot start",
                    where=" ".join(command),
                    remedy="run that command to see its error",
                )
        return self._child


def _read_line(descriptor: int, seconds: float) -> bytes | None:
    """Read up to a line's end; None where the stream ends first, or nothing comes within `seconds`."""
    deadline = time.monotonic() + seconds
    found = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while not found.endswith(b"\n"):
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return None
            data = os.read(descriptor, 65536)
            if not data:
                return None
            found += data
    return found


GUARD = TemplateGuard()
"""The one of this process."""
atexit.register(GUARD.close)
