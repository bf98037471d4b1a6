"""The child process that holds a vLLM engine: JSON lines in on its standard input, JSON lines out on a pipe.

A process of its own keeps vLLM's chatter out of the terminal, its imports out of ours, and lets nothing
outlive us: when our end of its standard input closes, by whatever death, it ends the engine's processes.
(vLLM's own engine process stays behind when its parent is killed, with all of the accelerator's memory.)

In:  `{"op": "start", ...}` once, then `requests`, `score`, `abort`, `close`.
Out: `refused` or `ready` once, then `completions`, `scores`, and `died` with the reason.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

Message = dict[str, Any]

_GRACE_SECONDS = 2.0
_WATCH_SECONDS = 0.5


class Inbox:
    """Messages from the parent, read on a thread; the end of the stream ends this process."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._messages: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._closing = False
        threading.Thread(target=self._read, args=(stream,), daemon=True, name="inbox").start()

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            message = json.loads(line)
            self._closing = message["op"] == "close"
            self._messages.put(message)
        if not self._closing:
            end_children()
            os._exit(1)

    def wait(self) -> Message:
        """Return the next message, waiting for it."""
        return self._messages.get()

    def drain(self) -> Iterator[Message]:
        """Yield the messages that are already here."""
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

    def send(self, message: Message) -> None:
        """Write one message."""
        line = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            self._stream.write(line)
            self._stream.flush()


def watch_children(outbox: Outbox) -> None:
    """Report the death of an engine process, on a thread: vLLM's own `step` would wait for it for ever."""
    children = multiprocessing.active_children()

    def watch() -> None:
        while all(child.is_alive() for child in children):
            time.sleep(_WATCH_SECONDS)
        dead = next(child for child in children if not child.is_alive())
        # Where the engine could say why it died, `step` raises; it gets the time to do so.
        time.sleep(_GRACE_SECONDS)
        outbox.send({"event": "died", "error": f"its process {dead.name} ended with code {dead.exitcode}"})
        end_children()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch").start()


def end_children() -> None:
    """End the engine's processes, and theirs; their tracker stays to free shared memory, then ends itself."""
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


def serve(engine: Any, inbox: Inbox, outbox: Outbox) -> None:
    """Answer messages until `close`. Whatever is waiting enters the engine before its next step."""
    while True:
        messages = list(inbox.drain()) if engine.busy else [inbox.wait()]
        for message in messages:
            match message["op"]:
                case "requests":
                    failed = engine.add_requests(message["requests"], message["sampling"])
                    if failed:
                        outbox.send({"event": "completions", "items": failed})
                case "score":
                    engine.add_texts(message["texts"])
                case "abort":
                    engine.abort()
                    outbox.send({"event": "aborted"})
                case "close":
                    return
        if engine.busy:
            completions, scores = engine.step()
            if completions:
                outbox.send({"event": "completions", "items": completions})
            if scores:
                outbox.send({"event": "scores", "items": scores})


def main() -> None:
    """Run the host; its only argument is the number of the descriptor that its answers go to."""
    descriptor = int(sys.argv[1])
    os.set_inheritable(descriptor, False)
    stream = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    inbox, outbox = Inbox(stream), Outbox(descriptor)
    setup = inbox.wait()

    from rlt_data.engines.vllm.core import RefusedError, VllmCore

    code = 1
    try:
        engine = VllmCore(setup)
        watch_children(outbox)
        outbox.send({"event": "ready", **engine.describe()})
        serve(engine, inbox, outbox)
        code = 0
    except RefusedError as refused:
        outbox.send(
            {"event": "refused", "what": refused.what, "where": refused.where, "remedy": refused.remedy}
        )
        code = 0
    except Exception as error:
        traceback.print_exc()
        outbox.send({"event": "died", "error": f"{type(error).__name__}: {error}"})
    finally:
        end_children()
        # vLLM's threads and exit handlers wait for processes that are gone.
        os._exit(code)


if __name__ == "__main__":
    main()
