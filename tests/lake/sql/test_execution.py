"""Queries within limits of memory, disk and time, and streams of which only what is fetched is computed."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rlt_data.errors import LakeError, UsageError
from rlt_data.lake import Lake, QueryLimits

# A cross join of 10^8 rows, and one that never ends.
MANY = "select a.range as a, b.range as b, repeat('x', 20) as s from range(10000) a, range(10000) b"
ENDLESS = (
    "select count(*) from range(100000000) a, range(100000000) b where md5((a.range + b.range)::text) = 'x'"
)
# It yields its first rows at once, and then works on without end.
STALLING = "select range from range(1000000000000) where range < 3000 or md5(range::text) = 'x'"


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def test_a_stream_has_the_rows_and_names_of_the_table(lake: Lake):
    query = "select range as n, 'x' as n, [range] as l from range(5000)"
    with lake.stream_sql(query) as rows:
        assert rows.schema == lake.sql(query).schema
        assert rows.schema.names == ["n", "n_1", "l"]
        batches = list(rows)
    assert len(batches) > 1
    assert [n for batch in batches for n in batch.column("n").to_pylist()] == list(range(5000))


def test_a_stream_may_be_left_after_its_first_rows_and_the_lake_is_queried_again(lake: Lake):
    before = set(threading.enumerate())
    for _ in range(3):
        with lake.stream_sql(MANY) as rows:
            assert next(iter(rows)).num_rows == 1024
    assert lake.sql("select 1 as n").to_pylist() == [{"n": 1}]
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("kind", ["describe runs", "show tables", "explain select 1", "summarize runs"])
def test_statements_of_other_kinds_are_streamed_too(lake: Lake, kind: str):
    with lake.stream_sql(kind) as rows:
        assert sum(batch.num_rows for batch in rows) == lake.sql(kind).num_rows


def test_errors_before_and_between_batches_are_errors_of_the_lake(lake: Lake):
    with pytest.raises(LakeError, match="no table"), lake.stream_sql("select * from questons"):
        pass
    with (
        lake.stream_sql("select if(range < 200000, 'x', error('bo' || 'om')) from range(300000)") as rows,
        pytest.raises(LakeError, match="boom"),
    ):
        list(rows)


@pytest.mark.parametrize("query", [ENDLESS, STALLING])
def test_a_query_ends_when_its_time_is_up(lake: Lake, query: str):
    limits = QueryLimits(seconds=0.5)
    with pytest.raises(LakeError, match=r"stopped after 0\.5 seconds"):
        lake.sql(query, limits=limits)
    with (
        pytest.raises(LakeError, match=r"stopped after 0\.5 seconds"),
        lake.stream_sql(query, limits=limits) as rows,
    ):
        list(rows)


def test_memory_and_disk_have_limits(lake: Lake):
    held = QueryLimits(memory_gib=0.1, spill_gib=0)
    with pytest.raises(LakeError, match="more memory or disk") as caught:
        lake.sql("select list(range) as l from range(100000000)", limits=held)
    assert "--memory" in (caught.value.remedy or "")
    sort = "select md5(range::text) as m from range(4000000) order by m limit 3 offset 3999990"
    with pytest.raises(LakeError, match="more memory or disk"):
        lake.sql(sort, limits=held)
    assert lake.sql(sort, limits=QueryLimits(memory_gib=0.1, spill_gib=4)).num_rows == 3


@pytest.mark.parametrize("wrong", [{"memory_gib": 0}, {"spill_gib": -1}, {"seconds": float("nan")}])
def test_limits_have_ranges(wrong: dict[str, float]):
    with pytest.raises(UsageError, match="out of range"):
        QueryLimits(**wrong)


MEASURED = """
import re, sys
from pathlib import Path
from rlt_data_cli.main import main
try:
    main(sys.argv[1:])
finally:
    # Not ru_maxrss: on Linux it begins with the memory of the process that started this one.
    print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""


def run_measured(folder: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], float]:
    """Run the program in a process of its own; return what it printed and its peak memory in MB."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak memory of a process is not in /proc")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments], capture_output=True, text=True, cwd=folder, check=False
    )
    return done, int(done.stderr.splitlines()[-1]) * 1024 / 1e6


def test_showing_the_first_of_very_many_rows_takes_little_memory(lake: Lake):
    lake.prepare()
    folder = Path(lake.uri).parent
    done, megabytes = run_measured(folder, "sql", MANY)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 102
    assert megabytes < 1000


def test_writing_many_rows_takes_little_memory(lake: Lake):
    lake.prepare()
    folder = Path(lake.uri).parent
    wide = "select range as n, repeat(chr(65 + (range % 26)::int), 20000) as s from range(20000)"
    _, least = run_measured(folder, "sql", "select 1 as n", "-f", "csv")
    for format in ("csv", "json", "parquet"):  # 400 MB of text
        done, megabytes = run_measured(folder, "sql", wide, "-f", format, "-o", f"out.{format}")
        assert done.returncode == 0, done.stderr
        assert megabytes < least + 250, format
    assert (folder / "out.csv").stat().st_size > 3.9e8


@pytest.mark.parametrize("query", [ENDLESS, STALLING])
def test_control_c_ends_a_query_at_once(lake: Lake, query: str):
    lake.prepare()
    script = f"""
import os, signal, threading
from rlt_data.lake import Lake
lake = Lake({lake.uri!r})
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    with lake.stream_sql({query!r}) as rows:
        list(rows)
except KeyboardInterrupt:
    print("interrupted", lake.sql("select 1 as n").to_pylist())
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == "interrupted [{'n': 1}]\n"
