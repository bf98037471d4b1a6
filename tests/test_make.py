"""`make venv` chooses an interpreter: run with the real make, over interpreters that only claim a version."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKE = shutil.which("make")

pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed")

# Claims a version, reports `-m` calls in `calls`, and makes `.venv` with itself as its interpreter.
INTERPRETER = """\
#!/bin/sh
case "$1 $2" in
  --version*) echo "Python {version}.7" ;;
  "-c "*) exec "{real}" -c "import sys; sys.version_info = ({comma}, 7); {before}; $2" ;;
  "-m venv"*) echo "$0 $*" >> calls; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
  "-m "*) echo "$0 $*" >> calls ;;
esac
"""


class Project:
    """A copy of the files that `make venv` reads, and a PATH that holds the given interpreters alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("cp", "grep", "mkdir", "touch", "uname"):
            found = shutil.which(name)
            assert found
            (self.bin / name).symlink_to(found)
        for path in (ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "rlt_data/tested.txt"):
            copy = folder / path.relative_to(ROOT)
            copy.parent.mkdir(exist_ok=True)
            shutil.copy(path, copy)

    def add_interpreter(self, name: str, version: str, *, before: str = "pass") -> Path:
        path = self.bin / name
        comma = version.replace(".", ", ")
        self._write(
            path, INTERPRETER.format(version=version, comma=comma, real=sys.executable, before=before)
        )
        return path

    def add_shim(self, name: str) -> None:
        """Add what pyenv leaves on the PATH for a version that is not active."""
        self._write(self.bin / name, f'#!/bin/sh\necho "pyenv: {name}: command not found" >&2\nexit 127\n')

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(MAKE), "venv", *arguments],
            cwd=self.folder,
            env={"PATH": str(self.bin)},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_first_interpreter_that_runs_is_used_and_named(project: Project) -> None:
    project.add_shim("python3.11")
    chosen = project.add_interpreter("python3.12", "3.12")
    project.add_interpreter("python3.13", "3.13")
    done = project.make()
    assert done.returncode == 0, done.stderr
    assert "with python3.12 (Python 3.12.7)" in done.stdout
    assert project.calls[0].startswith(f"{chosen} -m venv ")
    assert not any("python3.13" in call for call in project.calls)
    assert (project.folder / ".venv/.complete").exists()


def test_an_interpreter_without_venv_is_passed_over(project: Project) -> None:
    project.add_interpreter("python3.11", "3.11", before="sys.modules['ensurepip'] = None")
    project.add_interpreter("python3.13", "3.13")
    assert "with python3.13 (Python 3.13.7)" in project.make().stdout


def test_python_overrides_the_choice(project: Project) -> None:
    project.add_interpreter("python3.11", "3.11")
    other = project.add_interpreter("other", "3.12")
    assert f"with {other} (Python 3.12.7)" in project.make(f"PYTHON={other}").stdout


@pytest.mark.parametrize("version", ["3.10", "3.14"])
def test_an_unsupported_interpreter_is_refused_in_one_line(project: Project, version: str) -> None:
    project.add_interpreter("python3.11", "3.11")
    project.add_interpreter("other", version)
    done = project.make("PYTHON=other")
    assert done.returncode != 0
    message, *rest = done.stderr.splitlines()
    assert message == (
        "make: no Python 3.11, 3.12 or 3.13 with venv (tried: other); set PYTHON=/path/to/python"
    )
    assert all(line.startswith("make: ***") for line in rest)
    assert project.calls == []
    assert not (project.folder / ".venv").exists()


def test_an_environment_of_another_version_is_made_anew(project: Project) -> None:
    project.add_interpreter("python3.11", "3.11")
    project.add_interpreter("python3.12", "3.12")
    assert project.make().returncode == 0
    for arguments, cleared in (((), False), (("PYTHON=python3.12",), True)):
        os.utime(project.folder / ".venv/.complete", (0, 0))
        assert project.make(*arguments).returncode == 0
        last = [call for call in project.calls if " -m venv " in call][-1]
        assert ("--clear" in last) is cleared


def test_the_versions_agree_with_those_declared_and_checked() -> None:
    from rlt_data_cli.commands.doctor import SUPPORTED_PYTHON

    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    candidates = re.findall(r"python(3\.\d+)", text.split("CANDIDATES :=")[1].splitlines()[0])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    classified = [line.rsplit(" ", 1)[1] for line in project["classifiers"] if ":: Python :: 3." in line]
    assert candidates == classified == [f"{major}.{minor}" for major, minor in SUPPORTED_PYTHON]
    first, last = SUPPORTED_PYTHON[0], SUPPORTED_PYTHON[-1]
    assert project["requires-python"] == f">=3.{first[1]},<3.{last[1] + 1}"
    assert f"({first[0]}, {first[1]}) <= sys.version_info[:2] <= ({last[0]}, {last[1]})" in text
