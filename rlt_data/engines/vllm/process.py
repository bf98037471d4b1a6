"""The parent's end of the child process that holds vLLM: start it, exchange messages, explain its death."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlt_data.engines.base import wait_for
from rlt_data.engines.vllm.messages import EngineSetup, Item, Message, Operation, read_messages, write_message
from rlt_data.errors import EngineError, UsageError

HOST_PROGRAM = ("-m", "rlt_data.engines.vllm.host")
_GRACE_SECONDS = 8.0
_TERM_SECONDS = 2.0
_LAST_MESSAGES_SECONDS = 2.0
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

    vLLM's processes pass an error up, so the last lines of the log often come from a process that knows
    only that another one failed.
    """
    found = [match[1] for line in lines if (match := _ERROR.search(line)) and "above" not in match[1]]
    return list(dict.fromkeys(found))[:_ERRORS]


class HostProcess:
    """A child process that runs `rlt_data.engines.vllm.host`; its output goes to a log file.

    The constructor returns at once; `await_ready` returns when the engine accepts requests. It raises
    `UsageError` where the engine refuses its options. Every method that talks to the engine raises
    `EngineError`, with the last lines of the log, where it died. `program` holds Python's arguments.
    """

    def __init__(
        self, setup: EngineSetup, *, log_path: Path | None = None, program: Sequence[str] = HOST_PROGRAM
    ) -> None:
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
                [sys.executable, "-P", *program, str(sending)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(sending,),
                # A group of its own, for signals, in our session: Linux shares processor time by session.
                process_group=0,
                env={**_ENVIRONMENT, **os.environ},
            )
        os.close(sending)
        listener = threading.Thread(target=self._listen, args=(receiving,), daemon=True, name="vllm-listen")
        listener.start()
        threading.Thread(target=self._await_end, args=(listener,), daemon=True, name="vllm-wait").start()
        self.send("start", setup=setup)

    def await_ready(self) -> Message:
        """Wait until the engine is ready, and return the facts that it reports about itself.

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
        """The child's process id, which is also the id of the process group of the engine."""
        return self._process.pid

    @property
    def closed(self) -> bool:
        """Whether the engine has been ended, or has died."""
        return self._closed

    def send(self, operation: Operation, **content: Any) -> None:
        """Send one message. Raises `EngineError` where the engine is closed or has died."""
        stream = self._process.stdin
        if stream is None or stream.closed:
            raise EngineError("the vLLM engine is closed")
        try:
            write_message(stream, {"op": operation, **content})
        except BrokenPipeError as error:
            raise self._explain_death(None) from error

    def receive(self, on_wait: Callable[[], None] | None = None) -> Message:
        """Return the next message of the engine, waiting for it, with `on_wait` called every second.

        Raises `EngineError` where the engine died or is closed.
        """
        if self._closed:
            raise EngineError("the vLLM engine is closed")
        message = wait_for(self._inbox, on_wait)
        if message is None:
            raise self._explain_death(None)
        if message["event"] == "died":
            raise self._explain_death(message["error"])
        return message

    def exchange(
        self,
        operation: Operation,
        field: str,
        items: Iterator[Item],
        *,
        limit: int,
        on_wait: Callable[[], None] | None = None,
        **content: Any,
    ) -> Generator[Item, None, None]:
        """Send `items` in batches under the name `field`, and yield the engine's answers as they finish.

        `limit` items are always in the engine while there are so many. `content` goes with each batch.
        Closing the generator drops what is unanswered, so that the next call starts with an empty engine.
        """
        unanswered = 0
        exhausted = False
        try:
            while True:
                batch: list[Item] = []
                while not exhausted and unanswered < limit:
                    item = next(items, None)
                    if item is None:
                        exhausted = True
                        break
                    batch.append(item)
                    unanswered += 1
                if batch:
                    self.send(operation, **{field: batch}, **content)
                if not unanswered:
                    return
                for answer in self.receive(on_wait)["items"]:
                    unanswered -= 1
                    yield answer
        finally:
            if unanswered and not self._closed:
                self.send("abort")
                while self.receive()["event"] != "aborted":
                    continue

    def close(self) -> None:
        """End the engine and every process that belongs to it."""
        if self._closed:
            return
        self._closed = True
        if self._process.stdin is not None:
            with suppress(OSError):
                write_message(self._process.stdin, {"op": "close"})
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
        """Read messages until the stream ends or breaks; None in the inbox marks the end."""
        try:
            with os.fdopen(descriptor, "rb") as stream:
                for message in read_messages(stream):
                    self._inbox.put(message)
        except ValueError as error:
            self._inbox.put({"event": "died", "error": f"it sent a message that is not JSON: {error}"})
        finally:
            self._inbox.put(None)

    def _await_end(self, listener: threading.Thread) -> None:
        """Mark the end where the child is dead but one of its own children holds the stream open."""
        self._process.wait()
        listener.join(_LAST_MESSAGES_SECONDS)
        self._inbox.put(None)

    def _explain_death(self, error: str | None) -> EngineError:
        self.close()
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        cause = error or f"its process ended with code {self._process.returncode}"
        what = f"the vLLM engine died: {cause}"
        found = [line for line in find_errors(lines) if line not in cause]
        if found:
            what += "\n  errors in its log:" + "".join(f"\n    {line[:800]}" for line in found)
        tail = "".join(f"\n    {line[:400]}" for line in lines[-_LOG_LINES:])
        return EngineError(
            f"{what}\n  the last lines of its log:{tail}",
            where=str(self.log_path),
            remedy="committed rows are kept: run the same command again to resume; if memory ran out, "
            "lower max_num_seqs, max_model_len or gpu_memory_utilization",
        )

    def _end_group(self) -> None:
        """End the engine's processes where the child could not do so itself, because it was killed."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGTERM)
            deadline = time.monotonic() + _TERM_SECONDS
            while time.monotonic() < deadline:
                time.sleep(0.05)
                os.killpg(self._process.pid, 0)  # raises when the group is empty
            os.killpg(self._process.pid, signal.SIGKILL)
