"""The child process that holds a vLLM engine: JSON lines in on its standard input, JSON lines out on a pipe.

A separate process keeps vLLM's output off the terminal and its imports out of the parent. No engine process
outlives the parent: when its standard input closes, however the parent died, this process ends them all.
(vLLM's own engine process survives a killed parent and keeps all of the accelerator's memory.)

In:  `{"op": "start", ...}` once, then `requests`, `score`, `abort`, `close`.
Out: `refused` or `ready` once, then `completions`, `scores`, `aborted`, and `died` with the reason.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import IO, Any, NoReturn, Protocol, assert_never

from rlt_data.engines.vllm.messages import (
    EngineSetup,
    Event,
    Item,
    Message,
    Operation,
    read_messages,
    write_message,
)
from rlt_data.engines.vllm.options import RefusedError

_GRACE_SECONDS = 2.0
_CLOSE_SECONDS = 20.0
_WATCH_SECONDS = 0.5


class HostedEngine(Protocol):
    """The engine methods that the host calls; see `rlt_data.engines.vllm.core.VllmCore`."""

    @property
    def busy(self) -> bool:
        """Whether a request is waiting or running."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return facts for the parent."""
        ...

    def add_requests(self, requests: Sequence[Item], sampling: dict[str, Any]) -> list[Item]:
        """Add requests; return those that failed at once."""
        ...

    def add_texts(self, texts: Sequence[Item]) -> None:
        """Add texts to be scored."""
        ...

    def step(self) -> tuple[list[Item], list[Item]]:
        """Run one step; return finished completions and finished scores."""
        ...

    def abort(self) -> None:
        """Drop every request."""
        ...


class Inbox:
    """Messages from the parent, read on a thread. This process ends when their stream does."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(stream,), daemon=True, name="inbox").start()

    def _read(self, stream: IO[bytes]) -> None:
        closing = False
        try:
            for message in read_messages(stream):
                closing = message["op"] == "close"
                self._messages.put(message)
        except Exception:
            # Whatever is wrong with the stream, the engine's processes must not stay behind.
            traceback.print_exc()
        if closing:
            # The main thread ends this process, unless vLLM never returns to it.
            time.sleep(_CLOSE_SECONDS)
        exit_with_children(1)

    def wait(self) -> Message:
        """Return the next message, waiting for it."""
        return self._messages.get()

    def drain(self) -> Iterator[Message]:
        """Yield the messages that have already arrived."""
        while True:
            try:
                yield self._messages.get_nowait()
            except queue.Empty:
                return


class Outbox:
    """Messages to the parent."""

    def __init__(self, descriptor: int) -> None:
        self._stream = os.fdopen(descriptor, "wb")
        self._lock = threading.Lock()

    def send(self, event: Event, **content: Any) -> None:
        """Write one message."""
        with self._lock:
            write_message(self._stream, {"event": event, **content})


def watch_children(outbox: Outbox) -> None:
    """Report the death of an engine process, on a thread: vLLM's own `step` would wait for it forever."""
    children = multiprocessing.active_children()

    def watch() -> None:
        while all(child.is_alive() for child in children):
            time.sleep(_WATCH_SECONDS)
        dead = next(child for child in children if not child.is_alive())
        # If the engine can report why it died, `step` raises within this time.
        time.sleep(_GRACE_SECONDS)
        with suppress(OSError):
            outbox.send("died", error=f"its process {dead.name} ended with code {dead.exitcode}")
        exit_with_children(1)

    threading.Thread(target=watch, daemon=True, name="watch").start()


def exit_with_children(code: int) -> NoReturn:
    """End the engine's processes, then this one.

    The exit is immediate: vLLM's threads and exit handlers would wait for processes that are gone.
    """
    try:
        end_children()
    finally:
        os._exit(code)


def end_children() -> None:
    """Kill all descendants but the resource tracker, which frees shared memory and then ends by itself."""
    import psutil

    children = [
        child
        for child in psutil.Process().children(recursive=True)
        if not any("resource_tracker" in word for word in _read_command(child))
    ]
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    deadline = time.monotonic() + _GRACE_SECONDS
    while any(_is_alive(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.02)


def _is_alive(process: Any) -> bool:
    import psutil

    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _read_command(process: Any) -> list[str]:
    import psutil

    try:
        return list(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


def serve(engine: HostedEngine, inbox: Inbox, outbox: Outbox) -> None:
    """Answer messages until `close`. Requests that have arrived enter the engine before its next step."""
    while True:
        messages = list(inbox.drain()) if engine.busy else [inbox.wait()]
        for message in messages:
            operation: Operation = message["op"]
            match operation:
                case "requests":
                    failed = engine.add_requests(message["requests"], message["sampling"])
                    if failed:
                        outbox.send("completions", items=failed)
                case "score":
                    engine.add_texts(message["texts"])
                case "abort":
                    engine.abort()
                    outbox.send("aborted")
                case "close":
                    return
                case "start":
                    raise RuntimeError("the engine was started twice")
                case _:
                    assert_never(operation)
        if engine.busy:
            completions, scores = engine.step()
            if completions:
                outbox.send("completions", items=completions)
            if scores:
                outbox.send("scores", items=scores)


def run_host(descriptor: int, open_engine: Callable[[EngineSetup], HostedEngine]) -> NoReturn:
    """Serve one engine on standard input and `descriptor` until the parent closes it or dies."""
    os.set_inheritable(descriptor, False)
    stream = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    inbox, outbox = Inbox(stream), Outbox(descriptor)
    code = 1
    try:
        engine = open_engine(inbox.wait()["setup"])
        watch_children(outbox)
        outbox.send("ready", **engine.describe())
        serve(engine, inbox, outbox)
        code = 0
    except RefusedError as refused:
        outbox.send("refused", what=refused.what, where=refused.where, remedy=refused.remedy)
        code = 0
    except Exception as error:
        traceback.print_exc()
        outbox.send("died", error=f"{type(error).__name__}: {error}")
    finally:
        exit_with_children(code)


def open_vllm(setup: EngineSetup) -> HostedEngine:
    """Start vLLM. Raises `RefusedError` where it cannot run with these options."""
    from rlt_data.engines.vllm.core import VllmCore

    return VllmCore(setup)


if __name__ == "__main__":
    # The only argument is the number of the descriptor that answers go to.
    run_host(int(sys.argv[1]), open_vllm)
