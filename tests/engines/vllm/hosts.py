"""Real host processes without vLLM, and whether they are still alive."""

from __future__ import annotations

import time
from collections.abc import Iterable

import psutil

from rlt_data.engines.vllm.messages import EngineSetup

BOUND_SECONDS = 120.0
"""A test that waits this long has failed."""

SETUP: EngineSetup = {
    "model": "none",
    "tokenizer": "none",
    "adapter": None,
    "dtype": "auto",
    "device": "auto",
    "max_rows": None,
    "purpose": "generate",
    "context": 0,
    "vocabulary": 1,
    "memory_bytes": 0,
    "options": {},
}

HOST_WITH_CHILD = """
import os, subprocess, sys
from rlt_data.engines.vllm.host import run_host

class IdleEngine:
    "An engine that never has work and holds a process, as vLLM's does with the accelerator's memory."

    busy = False

    def __init__(self, setup):
        self.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])

    def describe(self):
        return {"processes": [os.getpid(), self.child.pid]}

run_host(int(sys.argv[1]), IdleEngine)
"""
"""The real host around an engine without vLLM."""


def list_living(process_ids: Iterable[int]) -> list[int]:
    """List the processes that still run; zombies, which hold nothing, do not count."""
    living = []
    for process_id in process_ids:
        try:
            if psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE:
                living.append(process_id)
        except psutil.NoSuchProcess:
            continue
    return living


def await_death(process_ids: Iterable[int]) -> list[int]:
    """Wait until all processes are gone; returns those that are left at the bound."""
    process_ids = list(process_ids)
    deadline = time.monotonic() + BOUND_SECONDS
    while (living := list_living(process_ids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return living


def kill_all(process_ids: Iterable[int]) -> None:
    """Kill the processes that a failed test left behind."""
    for process_id in list_living(process_ids):
        psutil.Process(process_id).kill()
