"""Child processes that can be killed, for comparisons that may never end.

Symbolic comparison can run forever or use all memory on an adversarial expression, and a time limit
inside the process (an alarm, a thread) does not stop native code. So child processes read requests from
a pipe: one that does not answer in time is killed and replaced, and only its request has no result.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

from rlt_data.errors import ModelError

START_SECONDS = 120.0
"""Seconds that a child may take to import its libraries before its first answer."""
RECYCLE_AFTER = 2_000
"""Requests after which a child is replaced: symbolic libraries cache what they have seen."""


@dataclass(frozen=True)
class Reply:
    """What a child returned: a JSON value, or why there is none and a sentence about it."""

    value: Any = None
    failure: Literal["timed_out", "failed"] | None = None
    detail: str | None = None


@dataclass
class _Child:
    """One child process; `request` is the index of its current request, `deadline` the time to answer it."""

    process: subprocess.Popen[bytes]
    request: int | None = None
    deadline: float = 0.0
    answered: int = 0
    ready: bool = False
    buffer: bytearray = field(default_factory=bytearray)


class WorkerPool:
    """Calls a function in up to `processes` children, each call within `seconds`. Use as a context manager.

    `function` is named as `MODULE:FUNCTION`; it takes and returns one JSON value. Children start with the
    first requests and live until the pool closes.
    """

    def __init__(self, function: str, *, seconds: float = 5.0, processes: int | None = None) -> None:
        self._function = function
        self._seconds = seconds
        self._processes = processes or max(1, min(8, os.cpu_count() or 1))
        self._children: list[_Child] = []

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the children."""
        for child in self._children:
            _end(child)
        self._children = []

    def run(self, requests: Sequence[Any], *, on_done: Callable[[], None] | None = None) -> list[Reply]:
        """Call the function with each of the JSON values; the replies come in the order of the requests.

        `on_done` is called after every request. Raises `ModelError` where a child cannot start.
        """
        replies = [Reply(failure="failed")] * len(requests)
        waiting = deque(range(len(requests)))
        with selectors.DefaultSelector() as selector:
            for child in self._children:
                selector.register(_get_output(child), selectors.EVENT_READ, child)
            while waiting or any(child.request is not None for child in self._children):
                self._assign(waiting, requests, selector)
                for index, reply in self._collect(selector):
                    replies[index] = reply
                    if on_done:
                        on_done()
        return replies

    def _assign(self, waiting: deque[int], requests: Sequence[Any], selector: selectors.BaseSelector) -> None:
        while waiting and len(self._children) < min(self._processes, self._count_busy() + len(waiting)):
            child = self._start()
            self._children.append(child)
            selector.register(_get_output(child), selectors.EVENT_READ, child)
        for child in [c for c in self._children if c.request is None]:
            if not waiting:
                return
            child.request = waiting.popleft()
            limit = self._seconds if child.ready else self._seconds + START_SECONDS
            child.deadline = time.monotonic() + limit
            line = json.dumps(requests[child.request]).encode() + b"\n"
            try:
                assert child.process.stdin is not None
                child.process.stdin.write(line)
                child.process.stdin.flush()
            except BrokenPipeError:
                # It died after its last answer; the selector will report the closed pipe.
                continue

    def _count_busy(self) -> int:
        return sum(child.request is not None for child in self._children)

    def _collect(self, selector: selectors.BaseSelector) -> list[tuple[int, Reply]]:
        busy = [child for child in self._children if child.request is not None]
        wait = max(0.0, min(child.deadline for child in busy) - time.monotonic())
        results: list[tuple[int, Reply]] = []
        for key, _ in selector.select(timeout=wait):
            child: _Child = key.data
            data = os.read(_get_output(child), 65536)
            child.buffer += data
            while b"\n" in child.buffer:
                line, _, rest = bytes(child.buffer).partition(b"\n")
                child.buffer = bytearray(rest)
                if not child.ready:
                    child.ready = True
                    if child.request is not None:
                        child.deadline = time.monotonic() + self._seconds
                elif child.request is not None:
                    results.append((child.request, _read_reply(line)))
                    child.request, child.answered = None, child.answered + 1
            if not data:
                if not child.ready:
                    self.close()
                    raise ModelError(
                        "the process that compares answers cannot start",
                        where=f"{sys.executable} -m rlt_data.tasks.grading.child {self._function} 5",
                        remedy="run that command to see its error",
                    )
                results += self._drop(child, selector, "failed", "the process that compared answers ended")
            elif child.request is None and child.answered >= RECYCLE_AFTER:
                self._drop(child, selector, "failed", None)
        now = time.monotonic()
        for child in [c for c in self._children if c.request is not None and c.deadline <= now]:
            late = f"the comparison took longer than {self._seconds:g} seconds"
            results += self._drop(child, selector, "timed_out", late)
        return results

    def _drop(
        self,
        child: _Child,
        selector: selectors.BaseSelector,
        failure: Literal["timed_out", "failed"],
        detail: str | None,
    ) -> list[tuple[int, Reply]]:
        selector.unregister(_get_output(child))
        _end(child)
        self._children.remove(child)
        return [] if child.request is None else [(child.request, Reply(failure=failure, detail=detail))]

    def _start(self) -> _Child:
        command = [sys.executable, "-m", "rlt_data.tasks.grading.child", self._function, str(self._seconds)]
        return _Child(
            subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )


def _end(child: _Child) -> None:
    child.process.kill()
    child.process.wait()
    for stream in (child.process.stdin, child.process.stdout):
        if stream is not None:
            try:
                stream.close()
            except BrokenPipeError:
                continue


def _get_output(child: _Child) -> int:
    assert child.process.stdout is not None
    return child.process.stdout.fileno()


def _read_reply(line: bytes) -> Reply:
    reply = json.loads(line)
    if "failed" in reply:
        return Reply(failure="failed", detail=reply["failed"])
    return Reply(value=reply["value"])
