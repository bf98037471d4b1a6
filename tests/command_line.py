"""The real command line, run in a process of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path

from rlt_data_cli.main import main

Done = subprocess.CompletedProcess[str]


class Program:
    """`rlt-data`, run in `folder` with nothing of the user's own environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *arguments: str, input: str | None = None, **env: str) -> Done:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("RLT_DATA", "COLUMNS"))
        }
        own = {"XDG_STATE_HOME": str(self.folder / "state"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [find_program(), *arguments],
            capture_output=True,
            text=True,
            input="" if input is None else input,
            cwd=self.folder,
            env=inherited | own | env,
            check=False,
        )

    def succeed(self, *arguments: str, input: str | None = None, **env: str) -> str:
        """Run it, expect exit code 0, and return what it printed on stdout."""
        done = self(*arguments, input=input, **env)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def fail(self, code: int, *arguments: str, input: str | None = None, **env: str) -> str:
        """Run it, expect exit code `code` and no traceback, and return what it printed on stderr."""
        done = self(*arguments, input=input, **env)
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done.stderr


class QuickProgram(Program):
    """The same within this process, for tests that need no separate one."""

    def __call__(self, *arguments: str, input: str | None = None, **env: str) -> Done:
        assert not env, "environment variables need a separate process"
        before, stdout, stderr = sys.stdin, io.StringIO(), io.StringIO()
        sys.stdin = io.TextIOWrapper(io.BytesIO((input or "").encode()), encoding="utf-8")
        code: int | str | None = None
        try:
            with chdir(self.folder), redirect_stdout(stdout), redirect_stderr(stderr):
                main(arguments)
        except SystemExit as leaving:
            code = leaving.code
        finally:
            sys.stdin = before
        return Done(arguments, int(code or 0), stdout.getvalue(), stderr.getvalue())


def find_program() -> str:
    """Find the `rlt-data` of the environment that the tests run in."""
    return str(Path(sys.executable).with_name("rlt-data"))
