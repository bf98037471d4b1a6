"""Runs a program where it can do no harm: bubblewrap's namespaces, and limits that it cannot raise.

The program sees a Python interpreter and its library, read-only; a small temporary folder of its own; no
network, no other process, no environment, no file of the user. It gets its input and nothing else: what is
expected of it never enters the sandbox, and its output is compared outside.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlt_data.errors import UsageError

NOBODY = 65534
MEMORY_BYTES = 2**30
FILE_BYTES = 8 * 2**20
FOLDER_BYTES = 64 * 2**20
MAX_PROCESSES = 32

_LAUNCHER = Path(__file__).with_name("launcher.py")
_PROGRAM = "/program.py"
_LOADER = ("bin", "lib", "lib32", "lib64", "sbin")
_PROBE = """
import os, socket
def fails(action):
    try:
        action()
    except OSError:
        return True
    return False
others = [name for name in os.listdir("/proc") if name.isdigit()]
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
isolated = (
    len(others) < 5
    and fails(lambda: datagrams.connect(("192.0.2.1", 9)))
    and fails(lambda: open("/usr/rlt_data_probe", "w"))
    and fails(lambda: open("/rlt_data_probe", "w"))
    and fails(lambda: os.listdir("/home"))
)
print("isolated" if isolated else "it sees processes, files or a network")
"""


@dataclass(frozen=True)
class Outcome:
    """How a program ended. `output` is its standard output, and `error` the last line of its error output."""

    ending: Literal["finished", "failed", "timed_out"]
    output: str
    error: str = ""


class Sandbox:
    """Runs programs with bubblewrap, each within `seconds`.

    Raises `UsageError` where bubblewrap is missing, or does not isolate a program here.
    """

    def __init__(self, *, seconds: float = 10.0) -> None:
        self._seconds = seconds
        found = shutil.which("bwrap")
        if found is None:
            raise UsageError(
                "programs run only in a sandbox, and bubblewrap is not installed",
                where="bwrap",
                remedy="install bubblewrap (such as: apt install bubblewrap), or grade without running code",
            )
        self._bubblewrap = found
        self._python = find_interpreter()
        outcome = self.run(_PROBE, "")
        if outcome.output.strip() != "isolated":
            reason = outcome.error or outcome.output.strip() or outcome.ending
            raise UsageError(
                f"bubblewrap does not isolate programs here: {reason}",
                where=found,
                remedy="allow unprivileged user namespaces, or grade without running code",
            )

    def run(self, program: str, given: str) -> Outcome:
        """Run a program with `given` as its standard input."""
        return self._run(program, given, {})

    def call(self, program: str, function: str, arguments: str) -> tuple[Outcome, Any]:
        """Call a function of a program (or of its class `Solution`); `arguments` is a JSON list.

        Returns how the program ended, and the value, None where there is none.
        """
        mark = secrets.token_hex(16)
        outcome = self._run(program, arguments, {"function": function, "mark": mark})
        _, _, text = outcome.output.rpartition(f"\n{mark}")
        if outcome.ending != "finished":
            return outcome, None
        if not text:
            return Outcome("failed", outcome.output, "the program ended before its function did"), None
        try:
            return outcome, json.loads(text)
        except (ValueError, RecursionError):
            return Outcome("failed", outcome.output, "the value cannot be read"), None

    def _run(self, program: str, given: str, settings: dict[str, Any]) -> Outcome:
        limits = list_limits(self._seconds)
        launched = json.dumps({"limits": limits, **settings})
        with (
            _open_text(program) as source,
            _open_text(_LAUNCHER.read_text(encoding="utf-8")) as launcher,
            _open_text(given) as standard_input,
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as errors,
        ):
            files = {_PROGRAM: source, "/launcher.py": launcher}
            command = build_command(self._bubblewrap, self._python, files, launched)
            process = subprocess.Popen(
                command,
                stdin=standard_input,
                stdout=output,
                stderr=errors,
                pass_fds=list(files.values()),
                start_new_session=True,
                cwd="/",
                **_drop_root(),
            )
            try:
                # The limit of processor time is the program's own; this one counts waiting too.
                code = process.wait(self._seconds + 5)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                process.kill()
                process.wait()
            text, error = _read(output), _read(errors).strip().rpartition("\n")[2][-300:]
        if code is None or code in (-24, 128 + 24, 128 + 9):  # SIGXCPU, and the SIGKILL that follows it
            return Outcome("timed_out", text, error)
        return Outcome("finished" if code == 0 else "failed", text, error)


def list_limits(seconds: float) -> dict[str, int]:
    """Return the limits of a program by the names of the module `resource`."""
    return {
        "RLIMIT_CPU": int(seconds) + 1,
        "RLIMIT_AS": MEMORY_BYTES,
        "RLIMIT_FSIZE": FILE_BYTES,
        "RLIMIT_NPROC": MAX_PROCESSES,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_CORE": 0,
    }


def build_command(bubblewrap: str, python: Path, files: dict[str, int], settings: str) -> list[str]:
    """Build the command line of the sandbox; `files` are open descriptors by their path inside."""
    command = [
        bubblewrap,
        "--unshare-all",
        "--unshare-user",
        "--die-with-parent",
        "--new-session",
        "--cap-drop",
        "ALL",
    ]
    command += ["--uid", str(NOBODY), "--gid", str(NOBODY), "--hostname", "sandbox", "--clearenv"]
    environment = {"PATH": "/usr/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
    for name, value in environment.items():
        command += ["--setenv", name, value]
    command += ["--ro-bind", "/usr", "/usr"]
    for name in _LOADER:
        folder = Path("/", name)
        if folder.is_symlink():
            command += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.exists():
            command += ["--ro-bind", str(folder), str(folder)]
    if not python.is_relative_to("/usr"):
        prefix = str(python.parents[1])
        command += ["--ro-bind", prefix, prefix]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--proc", "/proc", "--dev", "/dev"]
    command += ["--size", str(FOLDER_BYTES), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    for path, descriptor in files.items():
        command += ["--ro-bind-data", str(descriptor), path]
    command += ["--remount-ro", "/dev", "--remount-ro", "/"]
    return [*command, "--", str(python), "-I", "-S", "-B", "/launcher.py", _PROGRAM, settings]


def find_interpreter() -> Path:
    """Return a Python that a sandboxed program can be run by.

    Root runs programs as nobody, whose number of processes can be limited; so the interpreter must be in a
    folder that everybody may read. Raises `UsageError` where there is none.
    """
    candidates = [
        Path(getattr(sys, "_base_executable", sys.executable)),
        *map(Path, ("/usr/local/bin/python3", "/usr/bin/python3")),
    ]
    for candidate in candidates:
        resolved = candidate.resolve()
        if resolved.is_file() and (os.geteuid() != 0 or _everybody_reads(resolved)):
            return resolved
    raise UsageError(
        "programs run as nobody where rlt-data runs as root, and nobody can run no Python here",
        where=", ".join(map(str, candidates)),
        remedy="run rlt-data as another user, or install Python in /usr",
    )


def _everybody_reads(path: Path) -> bool:
    """Return whether every user may run a file: it and the folders above it are open to all."""
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in (path, *path.parents))


def _drop_root() -> dict[str, Any]:
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


@contextmanager
def _open_text(text: str) -> Iterator[int]:
    with tempfile.TemporaryFile() as stream:
        stream.write(text.encode("utf-8", "replace"))
        stream.flush()
        stream.seek(0)
        yield stream.fileno()


def _read(stream: Any) -> str:
    stream.seek(0)
    return str(stream.read(FILE_BYTES).decode("utf-8", "replace"))
