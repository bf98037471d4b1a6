"""Sessions: the processes that work on runs, and whether a run that has not ended is still worked on.

A run that starts or resumes records its process in its state. There is no heartbeat: on the machine where the
process ran, it can be looked up; elsewhere it is not known whether it still runs.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rlt_data.lake.runs import SESSION_KEY, RunRecord

RunState = Literal["finished", "failed", "interrupted", "running", "interrupted or running"]
INTERRUPTED = "interrupted"
_ENDED = "ZXx"  # States of a process that has ended and whose parent has not noticed yet.


def describe_session() -> dict[str, Any]:
    """Describe this process, as a state of a run records it."""
    return {
        "host": platform.node(),
        "pid": os.getpid(),
        "kernel": _identify_kernel(),
        "process_started": _find_start("self"),
        "at": datetime.now(UTC).isoformat(),
    }


def find_state(record: RunRecord) -> RunState:
    """Return the state of a run for people; `interrupted or running` where it is not known which."""
    if record.finished:
        return "finished"
    if record.status == "failed":
        # An interruption by the user is recorded with this word, and so is what a repair found.
        return "interrupted" if (record.error or "").startswith(INTERRUPTED) else "failed"
    alive = is_alive(record.counts.get(SESSION_KEY, {}))
    if alive is None:
        return "interrupted or running"
    return "running" if alive else "interrupted"


def find_last_sign(record: RunRecord) -> datetime:
    """Return when the last known session of a run started or ended."""
    times = [record.started_at, record.ended_at or record.started_at]
    with suppress(ValueError, TypeError, KeyError):
        times.append(datetime.fromisoformat(record.counts[SESSION_KEY]["at"]))
    return max(times)


def is_alive(session: Mapping[str, Any]) -> bool | None:
    """Whether the process of a session still runs; None if that cannot be known on this machine."""
    kernel, started = session.get("kernel"), session.get("process_started")
    if kernel is None or started is None or kernel != _identify_kernel():
        return None
    return bool(_find_start(str(session.get("pid"))) == started)


def _identify_kernel() -> str | None:
    """Identify the running kernel and the space of its process ids; None on systems without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _find_start(process: str) -> int | None:
    """Return when a process started, in clock ticks since the start of the system; None if there is none."""
    try:
        content = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
        fields = content.rpartition(")")[2].split()
        return None if fields[0] in _ENDED else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
