"""The host process when its parent dies, with real processes and real kills; vLLM is in test_vllm.py."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from engines.vllm.hosts import BOUND_SECONDS, HOST_WITH_CHILD, SETUP, await_death, kill_all

PARENT = """
import json, os, signal, sys, time
from pathlib import Path
from rlt_data.engines.vllm.process import HostProcess

setup, program, log, sent = json.loads(sys.argv[1])
host = HostProcess(setup, log_path=Path(log), program=("-c", program))
print(json.dumps(host.await_ready()["processes"]), flush=True)
sys.stdin.readline()
host._process.stdin.write(sent.encode())
host._process.stdin.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    "sent",
    ["", '{"op":"requests","requests":[["a","hel', '{"op":"abort"}\n{"op', "no message\n", "[]\n"],
    ids=["nothing", "half", "one-and-a-half", "not-json", "not-a-message"],
)
def test_a_parent_killed_in_the_middle_of_a_message_ends_the_host_and_its_children(
    tmp_path: Path, sent: str
) -> None:
    arguments = json.dumps([SETUP, HOST_WITH_CHILD, str(tmp_path / "log"), sent])
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        processes = json.loads(parent.stdout.readline())
        try:
            assert len(processes) == 2
            assert all(psutil.pid_exists(process_id) for process_id in processes)
            parent.communicate("die\n", timeout=BOUND_SECONDS)
            assert parent.returncode == -signal.SIGKILL
            assert await_death(processes) == [], (tmp_path / "log").read_text()
        finally:
            kill_all(processes)
