"""The parent's end of the host process, with real children that die; vLLM itself is in test_vllm.py."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engines.vllm.hosts import BOUND_SECONDS, HOST_WITH_CHILD, SETUP, await_death, kill_all

from rlt_data.engines.vllm.process import HostProcess, find_errors
from rlt_data.errors import EngineError

LOG = """\
INFO 11-23 08:40:12 [core.py:110] Initializing a V1 LLM engine with config: model='x', errors: none
(EngineCore pid=44) ERROR 11-23 08:40:31 [core.py:1433] EngineCore failed to start.
(EngineCore pid=44) ERROR 11-23 08:40:31 [core.py:1433] Traceback (most recent call last):
(EngineCore pid=44) ERROR 11-23 08:40:31 [core.py:1433]     raise ValueError(
(EngineCore pid=44) ERROR 11-23 08:40:31 [core.py:1433] ValueError: To serve one request, 2 GiB is needed
(EngineCore pid=44) Process EngineCore:
(EngineCore pid=44) ValueError: To serve one request, 2 GiB is needed
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB
Traceback (most recent call last):
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above)
"""


def test_errors_are_found_once_each_without_those_that_point_to_others() -> None:
    assert find_errors(LOG.splitlines()) == [
        "ValueError: To serve one request, 2 GiB is needed",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1 GiB",
    ]
    assert find_errors([]) == []
    assert len(find_errors(f"KeyError: {index}" for index in range(9))) == 3


def call_within_bound(function: Callable[[], Any]) -> Any:
    """Call a function that must not wait forever; returns its result or the exception that it raised."""
    results: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def call() -> None:
        try:
            results.put(function())
        except Exception as error:
            results.put(error)

    threading.Thread(target=call, daemon=True).start()
    try:
        return results.get(timeout=BOUND_SECONDS)
    except queue.Empty:
        pytest.fail(f"{function} still waits after {BOUND_SECONDS:g} s")


DYING = """
import json, os, signal, subprocess, sys
out = int(sys.argv[1])
sys.stdin.readline()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], pass_fds=PASSED)
os.write(out, json.dumps({"event": "ready", "processes": [os.getpid(), child.pid]}).encode() + b"\\n")
sys.stdin.readline()
os.write(out, LAST_WORDS)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("passed", ["()", "(out,)"], ids=["pipe-closed", "pipe-held-by-a-grandchild"])
@pytest.mark.parametrize(
    "last_words", [b"", b'{"event":"completions","items":[["a","te', b'{"event":"aborted"}\n{"ev'], ids=len
)
def test_a_child_killed_in_the_middle_of_a_message_is_reported(
    tmp_path: Path, last_words: bytes, passed: str
) -> None:
    program = DYING.replace("LAST_WORDS", repr(last_words)).replace("PASSED", passed)
    host = HostProcess(SETUP, log_path=tmp_path / "log", program=("-c", program))
    processes = call_within_bound(host.await_ready)["processes"]
    try:
        host.send("abort")
        if b"\n" in last_words:
            assert call_within_bound(host.receive) == {"event": "aborted"}
        error = call_within_bound(host.receive)
        assert isinstance(error, EngineError)
        assert "ended with code -9" in str(error)
        assert host.closed
        # The engine's own processes are gone too, and nothing waits for a dead engine.
        assert await_death(processes) == []
        assert "is closed" in str(call_within_bound(host.receive))
    finally:
        kill_all(processes)


def test_a_child_killed_before_it_is_ready_is_reported(tmp_path: Path) -> None:
    program = 'import os, sys; os.write(int(sys.argv[1]), b\'{"event":"rea\'); os.abort()'
    host = HostProcess(SETUP, log_path=tmp_path / "log", program=("-c", program))
    assert "ended with code -6" in str(call_within_bound(host.await_ready))
    assert "is closed" in str(call_within_bound(host.await_ready))


def test_a_child_that_sends_something_else_than_messages_is_ended(tmp_path: Path) -> None:
    program = "import os, sys, time; os.write(int(sys.argv[1]), b'ready\\n'); time.sleep(3600)"
    host = HostProcess(SETUP, log_path=tmp_path / "log", program=("-c", program))
    assert "a message that is not JSON" in str(call_within_bound(host.await_ready))
    assert await_death([host.process_id]) == []


def test_closing_ends_the_child_and_its_processes(tmp_path: Path) -> None:
    host = HostProcess(SETUP, program=("-c", HOST_WITH_CHILD))
    processes = call_within_bound(host.await_ready)["processes"]
    try:
        host.close()
        assert await_death(processes) == []
        assert not host.log_path.exists()
        with pytest.raises(EngineError, match="is closed"):
            host.send("abort")
    finally:
        kill_all(processes)


ECHO = """
import json, os, sys
out = int(sys.argv[1])

def send(event, **content):
    os.write(out, json.dumps({"event": event, **content}).encode() + b"\\n")

largest = 0
held = []
for line in sys.stdin:
    message = json.loads(line)
    if message["op"] == "start":
        send("ready")
    elif message["op"] == "score":
        held += message["texts"]
        largest = max(largest, len(held))
        send("scores", items=[[*held.pop(0), message["scale"], largest]])
    elif message["op"] == "abort":
        held = []
        send("scores", items=[["late", [], 0, 0]])
        send("aborted")
    else:
        break
"""


def test_an_exchange_keeps_the_engine_filled_and_drops_the_rest_when_closed(tmp_path: Path) -> None:
    host = HostProcess(SETUP, program=("-c", ECHO))
    given: list[int] = []

    def give(count: int) -> Any:
        for number in range(count):
            given.append(number)
            yield [str(number), [number]]

    try:
        call_within_bound(host.await_ready)
        answers = host.exchange("score", "texts", give(50), limit=4, scale=2)
        assert next(answers) == ["0", [0], 2, 4]
        assert len(given) == 4
        answers.close()
        again = list(host.exchange("score", "texts", give(1), limit=4, scale=3))
        assert again == [["0", [0], 3, 4]]
        assert list(host.exchange("score", "texts", iter([]), limit=4)) == []
    finally:
        host.close()
