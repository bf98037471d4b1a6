"""The sandbox: what a program may not do, and the refusal where there is none."""

import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlt_data.errors import UsageError
from rlt_data.tasks.grading.code import sandbox as module
from rlt_data.tasks.grading.code.sandbox import Sandbox, build_command, list_limits


@pytest.fixture(scope="module")
def sandbox():
    """A sandbox, where bubblewrap works."""
    try:
        return Sandbox(seconds=2)
    except UsageError as error:
        pytest.skip(f"no program can be isolated here: {error.what}")


def test_a_program_reads_its_input_and_prints(sandbox):
    outcome = sandbox.run("print(sum(map(int, input().split())))", "1 2\n")
    assert (outcome.ending, outcome.output) == ("finished", "3\n")


def test_functions_and_methods_are_called(sandbox):
    for program in (
        "def add(a, b):\n    print('noise')\n    return a + b",
        "class Solution:\n    def add(self, a, b): return a + b",
    ):
        outcome, value = sandbox.call(program, "add", "[1, 2]")
        assert (outcome.ending, value) == ("finished", 3)


@pytest.mark.parametrize(
    "program",
    [
        "raise ValueError('no')",
        "def add(",
        "def subtract(a, b): return a - b",
        "def add(a, b): return {1}",
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "def add(a, b):\n    import os\n    print('x' * 32 + '3', flush=True)\n    os._exit(0)",
    ],
)
def test_a_function_that_gives_no_value_failed(sandbox, program):
    outcome, value = sandbox.call(program, "add", "[1, 2]")
    assert (outcome.ending, value) == ("failed", None)
    assert outcome.error


def test_no_file_of_the_user_is_seen(sandbox, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    tmp_path.chmod(0o755)
    places = [
        str(secret),
        str(Path.home()),
        "/etc/passwd",
        "/root",
        "/home",
        "/proc/1/root/etc/passwd",
        str(Path.cwd()),
    ]
    program = f"import os\nprint([p for p in {places!r} if os.path.exists(p)], dict(os.environ))"
    outcome = sandbox.run(program, "")
    assert outcome.output.startswith("[] "), outcome
    assert "PYTHON" not in outcome.output.replace("PYTHONHASHSEED", "")


def test_nothing_but_its_own_folder_is_written(sandbox):
    places = "/usr/x /x /program.py /launcher.py /dev/shm/x /dev/x /proc/x /etc/x /tmp/x"
    program = f"""
written = []
for place in "{places}".split():
    try:
        open(place, "w").write("x")
    except OSError:
        continue
    written.append(place)
print(written)
"""
    assert sandbox.run(program, "").output == "['/tmp/x']\n"
    # A folder is its program's own.
    assert sandbox.run("import os; print(os.listdir('/tmp'))", "").output == "[]\n"


def test_there_is_no_network_not_even_to_this_machine(sandbox):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        program = f"import socket; socket.create_connection(('127.0.0.1', {port}), timeout=1)"
        outcome = sandbox.run(program, "")
    assert outcome.ending == "failed"
    assert "Error" in outcome.error


def test_other_processes_are_neither_seen_nor_signalled(sandbox):
    program = f"""
import os, signal
print(len([name for name in os.listdir("/proc") if name.isdigit()]) < 5)
for pid in (1, {os.getpid()}, {os.getppid()}, -1):
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError:
        pass
"""
    assert sandbox.run(program, "").output in ("True\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "endings"),
    [
        ("while True: pass", {"timed_out"}),
        ("x = 'a' * 10**11", {"failed"}),
        ("x = []\nwhile True: x.append('a' * 10**6 + str(len(x)))", {"failed"}),
        ("import os\nwhile True: os.fork()", {"failed", "timed_out"}),
        (
            "from threading import Thread\nfrom time import sleep\n"
            "while True: Thread(target=sleep, args=(9,)).start()",
            {"failed", "timed_out"},
        ),
        ("while True: print('a' * 10**5)", {"failed"}),
        ("import os\nwhile True: os.write(2, b'a' * 10**5)", {"failed"}),
        ("open('/tmp/x', 'w').write('a' * 10**8)", {"failed"}),
        ("for i in range(99): open(f'/tmp/{i}', 'w').write('a' * 10**6)", {"failed"}),
        ("print(10**10**10)", {"failed", "timed_out"}),
        ("import resource as r; r.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY,) * 2)", {"failed"}),
        ("import os; os.setuid(0)", {"failed"}),
        ("import os; os.execv('/usr/bin/su', ['su'])", {"failed", "finished"}),
        ("import os; os.kill(os.getpid(), 9)", {"failed", "timed_out"}),
        ("import sys; sys.setrecursionlimit(10**9)\ndef f(): f()\nf()", {"failed", "timed_out"}),
        ("\x00", {"failed"}),
        ("print('\\ud800')", {"failed"}),
    ],
)
def test_limits_hold(sandbox, program, endings):
    outcome = sandbox.run(program, "")
    assert outcome.ending in endings, outcome
    assert len(outcome.output) <= module.FILE_BYTES


def test_a_sleeping_program_is_ended(sandbox):
    assert sandbox.run("import time; time.sleep(3600)", "").ending == "timed_out"


def test_processes_that_a_program_leaves_are_ended_with_it(sandbox):
    mark = f"rlt-data-left-{os.getpid()}"
    program = f"""
import os, sys
if os.fork() == 0:
    os.setsid()
    os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(3600)", "{mark}"])
print("done")
"""
    assert sandbox.run(program, "").output == "done\n"
    # The system ends them when the sandbox ends, a moment after the program does.
    deadline = time.monotonic() + 60
    while find_processes(mark):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def find_processes(mark):
    """List the command lines that end with `mark`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            command = path.read_bytes()
            if command.endswith(mark.encode() + b"\0"):
                found.append(command)
    return found


def test_without_bubblewrap_it_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="bubblewrap is not installed"):
        Sandbox()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo 'No permissions to create new namespace' >&2; exit 1",
            "No permissions to create new namespace",
        ),
        ("exit 0", "does not isolate"),
        # A stand-in that runs no sandbox is found out by what the program sees.
        (
            'while [ "$1" != -- ]; do shift; done; exec "$2" -c "print(\'it sees processes\')"',
            "it sees processes",
        ),
    ],
)
def test_a_bubblewrap_that_does_not_isolate_is_refused(monkeypatch, tmp_path, script, message):
    monkeypatch.setattr(module, "_drop_root", dict)
    fake = tmp_path / "bwrap"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(UsageError, match=message):
        Sandbox()


def test_the_probe_finds_out_that_nothing_is_isolated():
    # Here the probe runs as an ordinary process of this machine.
    done = subprocess.run([sys.executable, "-c", module._PROBE], capture_output=True, text=True, check=False)
    assert done.stdout.strip() != "isolated"
    Path("/rlt_data_probe").unlink(missing_ok=True)
    Path("/usr/rlt_data_probe").unlink(missing_ok=True)


def test_the_command_line_isolates():
    command = build_command("/usr/bin/bwrap", Path("/opt/python/bin/python3"), {"/program.py": 7}, "{}")
    text = " ".join(command)
    assert command[0] == "/usr/bin/bwrap"
    for part in (
        "--unshare-all --unshare-user --die-with-parent --new-session --cap-drop ALL",
        "--clearenv",
        "--ro-bind /opt/python /opt/python",
        "--ro-bind-data 7 /program.py",
        "--remount-ro /dev --remount-ro /",
    ):
        assert part in text
    # Nothing is bound so that it can be written, and the only folder of its own is bounded.
    assert "--bind" not in command
    assert "--dev-bind" not in command
    assert f"--size {module.FOLDER_BYTES} --tmpfs /tmp" in text
    assert "--share-net" not in command
    assert command[command.index("--") + 1 :][0] == "/opt/python/bin/python3"


def test_the_launcher_sets_limits_that_hold_without_a_sandbox_too(tmp_path):
    # Under plain limits alone, without bubblewrap: only the launcher is tested here.
    program = tmp_path / "program.py"
    program.write_text("import resource\nprint(resource.getrlimit(resource.RLIMIT_FSIZE)[1], input())\n")
    settings = json.dumps(
        {"limits": {name: n for name, n in list_limits(5).items() if name != "RLIMIT_NPROC"}}
    )
    launcher = Path(module.__file__).with_name("launcher.py")
    done = subprocess.run(
        [sys.executable, "-I", launcher, program, settings],
        input="hello",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == f"{module.FILE_BYTES} hello\n", done.stderr
