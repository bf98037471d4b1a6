"""Several processes write to one table at once: no row is lost or stored twice."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from rlt_data.errors import LakeError
from rlt_data.lake import Lake
from rlt_data.lake.tables.commits import Fence, FenceLostError

MakeQuestions = Callable[..., pl.DataFrame]

PRELUDE = """
import sys, time
from pathlib import Path
import polars as pl
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake

def make(table, numbers):
    frame = pl.DataFrame({"key": [hash_content(n) for n in numbers]})
    if table == "questions":
        return frame.select(question_id="key", question="key", solution="key", solution_rendered=pl.lit(True))
    text = pl.lit("x")
    return frame.select(reject_id="key", stage=text, source=text, reason=text, detail=text)

uri, table, me, go = sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4])
lake = Lake(uri)
Path(f"{go}.{me}").touch()
while not go.exists():
    time.sleep(0.001)
"""


def run_together(script: str, lake: Lake, table: str, tmp_path: Path, processes: int) -> list[str]:
    """Run `script` in several processes that start their work at the same moment; return what they print."""
    go = tmp_path / "go"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PRELUDE + script, lake.uri, table, str(number), str(go)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    while not all(Path(f"{go}.{number}").exists() for number in range(processes)):
        time.sleep(0.01)
        assert all(process.poll() is None for process in started), started[0].communicate()
    go.touch()
    outputs = [process.communicate(timeout=120) for process in started]
    for process, (_, errors) in zip(started, outputs, strict=True):
        assert process.returncode == 0, errors
    return [out for out, _ in outputs]


@pytest.mark.parametrize("table", ["questions", "rejects"])
def test_concurrent_appends_lose_nothing(lake: Lake, tmp_path: Path, table: str) -> None:
    script = """
for i in range(8):
    lake.table(table).append(make(table, [(me, i, j) for j in range(3)]), run_id=f"run{me}")
"""
    run_together(script, lake, table, tmp_path, processes=3)
    stored = lake.table(table).scan().collect()
    assert stored.height == stored.get_column(lake.table(table).schema.key).n_unique() == 3 * 8 * 3
    assert stored.get_column("run_id").value_counts().get_column("count").to_list() == [24] * 3


@pytest.mark.parametrize("table", ["questions", "rejects"])
def test_the_same_chunks_from_several_processes_are_stored_once(
    lake: Lake, tmp_path: Path, table: str
) -> None:
    script = """
written = 0
for i in range(6):
    rows = make(table, [i * 10 + j for j in range(3)])
    written += lake.table(table).commit(rows, run_id=f"run{me}").written
print(written)
"""
    outputs = run_together(script, lake, table, tmp_path, processes=3)
    stored = lake.table(table).scan().collect()
    assert stored.height == stored.get_column(lake.table(table).schema.key).n_unique() == 18
    assert sum(int(out) for out in outputs) == 6


def test_overlapping_chunks_keep_keys_unique(lake: Lake, tmp_path: Path) -> None:
    """Each process divides the same rows into other chunks, as two runs with overlapping inputs do."""
    script = """
rows = list(range(24))
size = me + 2
for start in range(0, 24, size):
    lake.table(table).append(make(table, rows[start : start + size]), run_id=f"run{me}")
"""
    run_together(script, lake, "questions", tmp_path, processes=3)
    keys = lake.table("questions").scan().collect().get_column("question_id")
    assert len(keys) == keys.n_unique() == 24


def test_compaction_during_writes_loses_nothing(lake: Lake, tmp_path: Path) -> None:
    script = """
for i in range(8):
    if me == 0:
        lake.compact(["rejects"])
    else:
        lake.table(table).append(make(table, [(me, i)]), run_id=f"run{me}")
"""
    lake.table("rejects").append(
        pl.DataFrame({"reject_id": ["0"], "stage": ["s"], "source": ["f"], "reason": ["r"], "detail": ["d"]}),
        run_id="first",
    )
    run_together(script, lake, "rejects", tmp_path, processes=3)
    stored = lake.table("rejects").scan().collect()
    assert stored.height == stored.get_column("reject_id").n_unique() == 17


def test_a_fence_stops_the_older_process(lake: Lake, make_questions: MakeQuestions) -> None:
    old, new = Lake(lake.uri).table("questions"), Lake(lake.uri).table("questions")
    old.commit(make_questions(1), run_id="run", fence=Fence("run", 0))
    new.raise_fence(Fence("run", 1))
    with pytest.raises(FenceLostError, match="resumed by a newer process") as caught:
        old.commit(make_questions(2), run_id="run", fence=Fence("run", 0))
    assert isinstance(caught.value, LakeError)
    new.commit(make_questions(3), run_id="run", fence=Fence("run", 1))
    old.commit(make_questions(4), run_id="other", fence=Fence("other", 0))
    assert new.count() == 3
