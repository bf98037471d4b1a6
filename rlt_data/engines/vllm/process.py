"""Our end of the process that holds vLLM: start it, talk to it, say why it died, and leave nothing behind."""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlt_data.engines.base import wait_for
from rlt_data.errors import EngineError, UsageError

Message = dict[str, Any]

_GRACE_SECONDS = 8.0
_TERM_SECONDS = 2.0
_LOG_LINES = 15
_ERRORS = 3
_ERROR = re.compile(r"(?:^|[\s\]])((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception): .*\S)")
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_LOGGING_COLOR": "0",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "PYTHONUNBUFFERED": "1",
}


def find_errors(lines: Iterable[str]) -> list[str]:
    """Find the first few errors that a log of vLLM names, without those that only point to others.

    vLLM's processes hand an error up: the last lines of the log are often those of a process that knows
    only that another one failed.
    """
    found = [match[1] for line in lines if (match := _ERROR.search(line)) and "above" not in match[1]]
    return list(dict.fromkeys(found))[:_ERRORS]


class HostProcess:
    """A child process that runs `rlt_data.engines.vllm.host`; what it prints goes to a log file.

    Making one returns at once; `await_ready` returns when the engine can be asked. It raises `UsageError`
    where the engine refuses its options, and whatever talks to the engine raises `EngineError`, with the
    last lines of its log, where it died.
    """

    def __init__(self, setup: Mapping[str, Any], *, log_path: Path | None = None) -> None:
        self._own_log = log_path is None
        if log_path is None:
            descriptor, name = tempfile.mkstemp(prefix="rlt-data-vllm-", suffix=".log")
            os.close(descriptor)
            log_path = Path(name)
        self.log_path = log_path
        self._inbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._closed = False
        self._facts: Message | None = None
        self._began = time.monotonic()
        self.start_seconds = 0.0
        receiving, sending = os.pipe()
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "rlt_data.engines.vllm.host", str(sending)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(sending,),
                # A group of its own, for signals, in our session: Linux shares processor time by session.
                process_group=0,
                env={**_ENVIRONMENT, **os.environ},
            )
        os.close(sending)
        threading.Thread(target=self._listen, args=(receiving,), daemon=True, name="vllm-listen").start()
        self.send({"op": "start", **setup})

    def await_ready(self) -> Message:
        """Wait until the engine is ready, and return the facts that it tells about itself.

        Raises `UsageError` where the engine refuses its options, `EngineError` where it dies.
        """
        if self._facts is None:
            try:
                message = self.receive()
                if message["event"] == "refused":
                    raise UsageError(message["what"], where=message["where"], remedy=message["remedy"])
            except BaseException:
                self.close()
                raise
            self._facts = message
            self.start_seconds = time.monotonic() - self._began
        return self._facts

    @property
    def process_id(self) -> int:
        """The child's process id, which is also the id of the group that the engine's processes are in."""
        return self._process.pid

    @property
    def closed(self) -> bool:
        """Whether the engine has been ended, or has died."""
        return self._closed

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message. Raises `EngineError` where the engine is closed or has died."""
        stream = self._process.stdin
        if stream is None or stream.closed:
            raise EngineError("the vLLM engine is closed")
        try:
            stream.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")
            stream.flush()
        except BrokenPipeError as error:
            raise self._explain_death(None) from error

    def receive(self, on_wait: Callable[[], None] | None = None) -> Message:
        """Return the next message of the engine, waiting for it, with `on_wait` called every second.

        Raises `EngineError` where the engine died.
        """
        message = wait_for(self._inbox, on_wait)
        if message is None:
            raise self._explain_death(None)
        if message["event"] == "died":
            raise self._explain_death(message["error"])
        return message

    def close(self) -> None:
        """End the engine and every process that belongs to it."""
        if self._closed:
            return
        self._closed = True
        if self._process.stdin is not None:
            with suppress(OSError):
                self._process.stdin.write(b'{"op":"close"}\n')
                self._process.stdin.flush()
            with suppress(OSError):
                self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_SECONDS)
        if self._process.returncode not in (0, 1):
            self._end_group()
            self._process.wait()
        if self._own_log and self._process.returncode == 0:
            self.log_path.unlink(missing_ok=True)

    def _listen(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb") as stream:
            for line in stream:
                self._inbox.put(json.loads(line))
        self._inbox.put(None)

    def _explain_death(self, error: str | None) -> EngineError:
        self.close()
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        how = error or f"its process ended with code {self._process.returncode}"
        told = f"the vLLM engine died: {how}"
        causes = [cause for cause in find_errors(lines) if cause not in how]
        if causes:
            told += "\n  its log names:" + "".join(f"\n    {cause[:800]}" for cause in causes)
        tail = "".join(f"\n    {line[:400]}" for line in lines[-_LOG_LINES:])
        return EngineError(
            f"{told}\n  the last lines of its log:{tail}",
            where=str(self.log_path),
            remedy="what is committed stays: run the same command again to go on; if memory ran out, "
            "lower max_num_seqs, max_model_len or gpu_memory_utilization",
        )

    def _end_group(self) -> None:
        """End the engine's processes where the child could not do so itself, because it was killed."""
        for number, seconds in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, 0.0)):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
                time.sleep(seconds)
