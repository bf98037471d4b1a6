"""Closed streams, narrow encodings, readers that leave, and what native libraries print."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import find_program

DEFECT = "this is a defect"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    (folder / "problems.jsonl").write_text('{"question": "1 + 1?", "solution": "2"}\n', encoding="utf-8")
    done = run(folder, "ingest problems.jsonl")
    assert done.returncode == 0, done.stderr
    return folder


def run(folder: Path, line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of bash in which the program is called without its name."""
    return subprocess.run(
        ["bash", "-c", f'set -o pipefail; "$0" {line}', find_program()],
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | env,
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "code", "stdout", "stderr"),
    [
        ("log >&-", 2, "", "error: stdout is closed\n  do:    redirect it"),
        ("log --lake nowhere 2>&-", 1, "", ""),
        ("log --limit 1 2>&-", 0, "ingest", ""),
        ("sql <&-", 1, "", "error: the query is empty"),
        ("sql 'select 1' > /dev/full", 1, "", "error: stdout cannot be written: No space left on device"),
        ("sql 'select * from range(300000)' --rows 0 | head -1", 0, "range", ""),
        ("sql 'select * from range(300000)' -f csv | head -1", 0, "range\n", ""),
        ("sql 'select * from range(300000)' -f json | head -1", 0, "[\n", ""),
        ("log | true", 0, "", ""),
        ("ingest problems.jsonl --lake piped -q | true", 0, "", ""),
        ("log --lake nowhere 2>&1 | true", 1, "", ""),
        ("ingest $'x\\xff.jsonl'", 2, "", "error: an argument is not valid UTF-8\n  where: x\\udcff.jsonl"),
        ("log --lake $'l\\xff'", 2, "", "error: an argument is not valid UTF-8"),
        ("sql 'select 1' -f csv -o $'o\\xff'", 2, "", "error: an argument is not valid UTF-8"),
    ],
)
def test_streams_and_arguments_of_any_kind_end_with_one_plain_message(
    folder: Path, line: str, code: int, stdout: str, stderr: str
):
    done = run(folder, line)
    assert done.returncode == code, done.stderr
    assert done.stdout.startswith(stdout) or stdout in done.stdout
    assert done.stderr.startswith(stderr)
    assert stderr or not done.stderr
    assert DEFECT not in done.stderr
    assert len(done.stderr.splitlines()) <= 3


@pytest.mark.parametrize(
    "line", ["sql \"select 'é\u202e' as n\"", 'sql "select é"', "log --stage é", "tables é", "run é.toml"]
)
def test_a_narrow_encoding_shows_other_characters_as_escapes(folder: Path, line: str):
    done = run(folder, line, PYTHONIOENCODING="ascii")
    assert done.returncode in (0, 1, 2)
    assert "\\xe9" in done.stdout + done.stderr
    assert DEFECT not in done.stderr


def test_a_folder_or_variable_that_is_not_utf_8_is_named(folder: Path):
    (folder / "d\udcff").mkdir()
    (folder / "files").mkdir()
    (folder / "files" / "x\udcff.jsonl").write_text('{"question": "1 + 2?", "solution": "3"}\n', "utf-8")
    inside = run(folder / "d\udcff", "log")
    named = run(folder, "log", RLT_DATA_LAKE="l\udcff")
    listed = run(folder, "ingest files --lake listed -q")
    for done in (inside, named, listed):
        assert done.returncode == 1, done.stderr
        assert done.stderr.startswith("error: a path or text is not valid UTF-8\n  where: ")
        assert "\\udcff" in done.stderr
        assert DEFECT not in done.stderr


def test_a_temporary_folder_that_is_not_utf_8_is_named(folder: Path):
    (folder / "t\udcff").mkdir()
    done = run(folder, "sql 'select 1'", TMPDIR=str(folder / "t\udcff"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: the temporary folder is not valid UTF-8\n  where: ")
    assert DEFECT not in done.stderr


NATIVE = """
import os, sys, threading
from rlt_data_cli.streams import own_streams
panic = b"\\nthread 'tokio' (12) panicked at src/buffered.rs:369:41:\\nShut down\\n\\nnote: x\\n"
with own_streams():
    os.write(2, b"native \\x1b[31m \\xff\\n")
    for part in (panic[:9], panic[9:40], panic[40:]):
        os.write(2, part)
    os.write(2, b"\\n\\nafter\\nno end of line")
    print("from Python \\x1b", file=sys.stderr)
os.write(2, b"as before\\n")
print("end", file=sys.stderr)
"""


def test_native_output_is_shown_without_panics():
    done = subprocess.run([sys.executable, "-c", NATIVE], capture_output=True, check=True)
    lines = done.stderr.decode().splitlines()
    assert "from Python \\x1b" in lines
    lines.remove("from Python \\x1b")
    assert lines == ["native \\x1b[31m \\xff", "", "", "after", "no end of line", "as before", "end"]
