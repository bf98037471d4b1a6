"""What `sql` writes: data exactly, formulas by name, files whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import os
import socket
import subprocess
from contextlib import chdir
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import Program, QuickProgram, find_program

RISKY = "select '=1+1' as \"@a\", '-x' as b, '+y' as c, chr(9) || 'z' as d, chr(13) as e, -5 as n, 'a=b' as f"


@pytest.fixture
def there(quick: QuickProgram) -> QuickProgram:
    quick.succeed("init", ".")
    return quick


def test_a_note_counts_what_a_spreadsheet_would_run_and_the_data_is_exact(there: QuickProgram):
    done = there("sql", RISKY, "-f", "csv")
    assert "note: a spreadsheet would run 6 cells of this CSV" in done.stderr
    assert list(csv.reader(io.StringIO(done.stdout, newline=""))) == [
        ["@a", "b", "c", "d", "e", "n", "f"],
        ["=1+1", "-x", "+y", "\tz", "\r", "-5", "a=b"],
    ]


def test_spreadsheet_safe_puts_an_apostrophe_before_them(there: QuickProgram):
    done = there("sql", RISKY, "-f", "csv", "--spreadsheet-safe")
    assert done.stderr == ""
    assert list(csv.reader(io.StringIO(done.stdout, newline=""))) == [
        ["'@a", "b", "c", "d", "e", "n", "f"],
        ["'=1+1", "'-x", "'+y", "'\tz", "'\r", "-5", "a=b"],
    ]
    assert there("sql", "select 'a' as b", "-f", "csv").stderr == ""
    assert "for CSV" in there.fail(2, "sql", RISKY, "--spreadsheet-safe")


def test_a_query_without_end_is_refused(there: QuickProgram):
    program = find_program()
    script = '"$0" sql - < /dev/zero; echo "exit $?" >&2'
    done = subprocess.run(
        ["bash", "-c", script, program],
        capture_output=True,
        text=True,
        cwd=there.folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert "the query is larger than 4 MiB" in done.stderr
    assert "exit 2" in done.stderr


def test_data_on_stdout_is_utf_8_and_exact(there: QuickProgram):
    program = Program(there.folder)
    query = "select 'é ' || chr(27) || chr(8238) as t"
    exact = "é \x1b\u202e"
    written = program.succeed("sql", query, "-f", "csv", PYTHONIOENCODING="ascii")
    assert written == f"t\n{exact}\n"
    written = program.succeed("sql", query, "-f", "json", PYTHONIOENCODING="ascii")
    assert "\x1b" not in written
    assert "\u202e" not in written
    assert json.loads(written) == [{"t": exact}]
    program.succeed("sql", query, "-f", "parquet", "-o", "out.parquet")
    assert pq.read_table(there.folder / "out.parquet").to_pylist() == [{"t": exact}]


def test_parquet_of_several_groups_and_of_no_rows_keeps_the_types(there: QuickProgram):
    there.succeed(
        "sql", "select range as n, repeat('x', 20000) as s from range(5000)", "-f", "parquet", "-o", "a"
    )
    read = pq.ParquetFile(there.folder / "a")
    assert read.metadata.num_rows == 5000
    assert 1 < read.metadata.num_row_groups < 10
    there.succeed("sql", "select 1 as n where false", "-f", "parquet", "-o", "b")
    assert str(pq.read_schema(there.folder / "b").field("n").type) == "int32"


@pytest.mark.parametrize("format", ["csv", "json", "parquet", "table"])
def test_a_query_that_fails_half_way_leaves_the_file_as_it_was(there: QuickProgram, format: str):
    out = there.folder / "out"
    out.write_text("before", encoding="utf-8")
    query = "select if(range < 200000, 'x', error('boom')) from range(300000)"
    assert "boom" in there.fail(1, "sql", query, "-f", format, "-o", "out", "--rows", "0")
    assert out.read_text(encoding="utf-8") == "before"
    assert sorted(path.name for path in there.folder.iterdir()) == ["lake", "out", "rlt-data.toml"]


@pytest.mark.parametrize("kind", ["a named pipe", "a socket", "a directory", "a device"])
@pytest.mark.parametrize("linked", [False, True])
def test_output_to_what_is_not_a_file_is_refused_and_not_waited_for(
    there: QuickProgram, kind: str, linked: bool
):
    path = there.folder / "special"
    match kind:
        case "a named pipe":
            os.mkfifo(path)
        case "a socket":
            with socket.socket(socket.AF_UNIX) as bound, chdir(there.folder):
                bound.bind("special")
        case "a directory":
            path.mkdir()
        case _:
            path = Path("/dev/zero")
    if linked:
        (there.folder / "link").symlink_to(path)
        path = there.folder / "link"
    for format in ("table", "csv", "json", "parquet"):
        message = there.fail(2, "sql", "select 1", "-f", format, "-o", str(path))
        assert f"the output is {kind}" in message
        assert str(path) in message
    assert path.exists()


def test_output_may_be_a_stream_or_a_link(there: QuickProgram):
    there.succeed("sql", "select 1 as n", "-f", "csv", "-o", "/dev/null")
    assert Path("/dev/null").is_char_device()
    (there.folder / "link").symlink_to("target")
    there.succeed("sql", "select 1 as n", "-f", "csv", "-o", "link")
    assert (there.folder / "target").read_text(encoding="utf-8") == "n\n1\n"
    assert Program(there.folder).succeed("sql", "select 1 as n", "-f", "csv", "-o", "/dev/stdout") == "n\n1\n"


def test_limits_are_options(there: QuickProgram):
    endless = "select count(*) from range(1000000000000) where md5(range::text) = 'x'"
    assert "stopped after 0.5 seconds" in there.fail(1, "sql", endless, "--timeout", "0.5")
    big = "select list(range) as l from range(100000000)"
    assert "--memory" in there.fail(1, "sql", big, "--memory", "0.1", "--spill", "0")
    there.succeed("sql", "select 1", "--timeout", "0")
    for wrong in (("--memory", "0"), ("--spill", "-1"), ("--timeout", "nan"), ("--memory", "inf")):
        there.fail(2, "sql", "select 1", *wrong)
