"""A lake of several runs, the ways to corrupt it, and running the commands again that made it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
from polars.testing import assert_frame_equal
from small_lake import MadeConfig, make_question, make_score, make_trace

from rlt_data.lake import Lake
from rlt_data.stages.rank import RankConfig, rank
from rlt_data.stages.runtime.declaration import StageDeclaration
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.starting import start_run

TABLES = ("questions", "traces", "scores", "rankings")
BATCHES = 3
Corruption = Callable[[Path], None]


def write_rows(lake: Lake, stage: str, table: str, rows: list[dict[str, object]], label: str) -> None:
    """Write rows as a stage does: a finished run is not run again, and existing rows are not written."""
    declaration = StageDeclaration(stage, "", writes=(table,))
    run = start_run(lake, declaration, MadeConfig(label=label), Preparation(lambda run: None))
    if isinstance(run, StageRun):
        with run:
            run.append(table, rows)


def make_rows(lake: Lake) -> None:
    """Make every row of the lake, as far as it is not there: what its commands would do again."""
    for batch in range(BATCHES):
        write_rows(lake, "ingest", "questions", [make_question(batch)], f"q{batch}")
    for batch in range(BATCHES):
        traces = [make_trace(batch, sample) for sample in range(4)]
        write_rows(lake, "generate", "traces", traces, f"t{batch}")
    for batch in range(BATCHES):
        scores = [make_score(make_trace(batch, s), -1.0 - s, exact=0.5) for s in range(4)]
        write_rows(lake, "score", "scores", scores, f"s{batch}")
    rank(lake, RankConfig())


def read_tables(uri: str) -> dict[str, pl.DataFrame]:
    """Read the rows of the tables, in the order of their keys."""
    lake = Lake(uri)
    return {name: lake.table(name).scan().sort(lake.table(name).schema.key).collect() for name in TABLES}


def assert_whole(uri: Path, whole: Path) -> None:
    """Assert that nothing is damaged, that every run is finished, and that the rows are those of `whole`."""
    lake = Lake(uri)
    assert lake.check() == []
    assert [report.damages for report in lake.verify() if report.damages] == []
    assert {run.status for run in lake.runs()} == {"finished"}
    expected = read_tables(str(whole))
    for name, rows in read_tables(str(uri)).items():
        assert_frame_equal(rows, expected[name])


def repair(uri: Path) -> None:
    reports = Lake(uri, check=False).verify()
    assert any(report.damages for report in reports)
    Lake(uri, check=False).repair(reports)
    assert [report.damages for report in Lake(uri).verify() if report.damages] == []
    assert Lake(uri).check() == []


def find_files(table: Path) -> list[Path]:
    """Find the data files of a table, the largest first."""
    return sorted(table.glob("*.parquet"), key=lambda path: (-path.stat().st_size, path.name))


def find_entries(table: Path) -> list[Path]:
    return sorted((table / "_delta_log").glob("*.json"))


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def cut_lines(path: Path) -> None:
    path.write_text(path.read_text(encoding="utf-8").splitlines(keepends=True)[0], encoding="utf-8")


def flip_bit(path: Path, position: int) -> None:
    """Flip one bit; `position` counts from the first one, modulo their number."""
    content = bytearray(path.read_bytes())
    position %= 8 * len(content)
    content[position // 8] ^= 1 << position % 8
    path.write_bytes(content)


def exchange_files(table: Path) -> None:
    one, other = find_files(table)[:2]
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


# All of these lose rows in a table of several data commits, and are found without reading the data.
CORRUPTIONS: dict[str, Corruption] = {
    "the table is removed": shutil.rmtree,
    "the log is removed": lambda table: shutil.rmtree(table / "_delta_log"),
    "the newest entry is deleted": lambda table: find_entries(table)[-1].unlink(),
    "the newest entry is emptied": lambda table: find_entries(table)[-1].write_bytes(b""),
    "the newest entry is cut": lambda table: cut(find_entries(table)[-1], 0.5),
    "the newest entry lost its last lines": lambda table: cut_lines(find_entries(table)[-1]),
    "the newest entry is garbage": lambda table: find_entries(table)[-1].write_bytes(b"\x00garbage\xff" * 20),
    "the two newest entries are deleted": lambda table: (
        [p.unlink() for p in find_entries(table)[-2:]] and None
    ),
    "an entry within is deleted": lambda table: find_entries(table)[1].unlink(),
    "an entry within is emptied": lambda table: find_entries(table)[1].write_bytes(b""),
    "an entry within is cut": lambda table: cut(find_entries(table)[1], 0.7),
    "the first entry is deleted": lambda table: find_entries(table)[0].unlink(),
    "the first entry is emptied": lambda table: find_entries(table)[0].write_bytes(b""),
    "a file is deleted": lambda table: find_files(table)[0].unlink(),
    "all files are deleted": lambda table: [p.unlink() for p in find_files(table)] and None,
    "a file is emptied": lambda table: find_files(table)[-1].write_bytes(b""),
    "a file lacks its last byte": lambda table: find_files(table)[0].write_bytes(
        find_files(table)[0].read_bytes()[:-1]
    ),
    "a file is cut in half": lambda table: cut(find_files(table)[0], 0.5),
    "a file has grown": lambda table: find_files(table)[0].write_bytes(
        find_files(table)[0].read_bytes() + b"x"
    ),
    "a file is zeros": lambda table: zero(find_files(table)[0]),
    "a file ends otherwise": lambda table: flip_bit(find_files(table)[0], -1),
}
