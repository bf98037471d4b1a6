"""A clock that is set back: runs are ordered by the log of `runs`, whatever their times are."""

from __future__ import annotations

import datetime as calendar
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import QuickProgram
from lineage_lake import append, make_chain
from small_lake import append_made, make_lake, make_score, make_trace, read_run

from rlt_data.lake import Lake, runs
from rlt_data.stages.rank import RankConfig, rank
from rlt_data.stages.runtime import run
from rlt_data.stages.runtime.selection import find_run

SetBack = Callable[[], None]


@pytest.fixture
def set_back(monkeypatch: pytest.MonkeyPatch) -> SetBack:
    class Yesterday(calendar.datetime):
        @classmethod
        def now(cls, zone: calendar.tzinfo | None = None) -> calendar.datetime:
            return calendar.datetime.now(zone) - calendar.timedelta(days=1)

    def set_clock_back() -> None:
        for module in (runs, run):
            monkeypatch.setattr(module, "datetime", Yesterday)

    return set_clock_back


def test_the_newest_ranking_is_the_one_that_was_committed_last(tmp_path: Path, set_back: SetBack) -> None:
    lake, _ = make_lake(tmp_path, questions=1, exact=0.0)
    older = rank(lake, RankConfig())
    set_back()
    newer = rank(lake, RankConfig(policy="all"))
    assert find_run(lake, "rank", None).run_id == newer.run_id
    assert lake.run(newer.run_id).ended_at < lake.run(older.run_id).ended_at  # type: ignore[operator]


def test_the_newest_score_is_the_one_that_was_committed_last(tmp_path: Path, set_back: SetBack) -> None:
    lake, traces = make_lake(tmp_path, questions=1, samples=2, exact=0.0)
    set_back()
    again = [make_score(t, -5.0 + t["sample_index"], exact=0.0, label="b") for t in traces]
    append_made(lake, "score", "scores", again, label="later")
    ranking = read_run(lake, "rankings", rank(lake, RankConfig(policy="all")).run_id).sort("rank")
    assert ranking["score_id"].to_list() == ["q0t1-student-b", "q0t0-student-b"]


def test_the_order_survives_compaction_and_vacuum(tmp_path: Path, set_back: SetBack) -> None:
    lake, _ = make_lake(tmp_path, questions=1, exact=0.0)
    rank(lake, RankConfig())
    set_back()
    newer = rank(lake, RankConfig(policy="all"))
    lake.compact()
    lake.vacuum(retention_hours=0, dry_run=False)
    assert find_run(Lake(lake.uri), "rank", None).run_id == newer.run_id


def test_lineage_names_runs_whose_clock_was_ahead(tmp_path: Path, set_back: SetBack) -> None:
    lake, _ = make_lake(tmp_path, questions=1, exact=0.0)
    set_back()
    ranked = rank(lake, RankConfig())
    later = append_made(lake, "generate", "traces", [make_trace(0, 9)], label="later")
    (step, *_) = lake.lineage(ranked.run_id)
    assert {"traces", "scores"} <= set(step.made_by)
    assert all(step.made_by.values()), "the runs that wrote what was read"
    lake.compact()
    lake.vacuum(retention_hours=0, dry_run=False)
    (step, *_) = lake.lineage(ranked.run_id)
    assert len(step.made_by["traces"]) == 1
    assert later not in step.made_by["traces"]


@pytest.fixture
def turn_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every look at the clock show an earlier time than the one before."""
    hours = iter(range(10**6))

    class Backwards(calendar.datetime):
        @classmethod
        def now(cls, zone: calendar.tzinfo | None = None) -> calendar.datetime:
            return calendar.datetime.now(zone) - calendar.timedelta(hours=next(hours))

    for module in (runs, run):
        monkeypatch.setattr(module, "datetime", Backwards)


def test_log_and_lineage_show_the_run_that_was_committed_last(tmp_path: Path, set_back: SetBack) -> None:
    lake, _ = make_lake(tmp_path, questions=1, exact=0.0)
    older = rank(lake, RankConfig())
    set_back()
    newer = rank(lake, RankConfig(policy="all"))
    program = QuickProgram(tmp_path)
    shown = json.loads(program.succeed("log", "--json", "--lake", lake.uri))
    assert [entry["run_id"] for entry in shown[:2]] == [newer.run_id, older.run_id]
    (first,) = json.loads(program.succeed("log", "--limit", "1", "--json", "--lake", lake.uri))
    assert first["run_id"] == newer.run_id
    for names in ((), ("rankings",), ("rank",)):
        step = json.loads(program.succeed("lineage", *names, "--json", "--lake", lake.uri))[0]
        assert step["run_id"] == newer.run_id
    assert lake.lineage()[-1].run.run_id == newer.run_id


@pytest.mark.usefixtures("turn_back")
def test_views_order_runs_by_their_log(tmp_path: Path) -> None:
    chain = make_chain(tmp_path, records_set=False)
    lake = chain.lake
    graded = lake.table("grades").scan().collect().to_dicts()
    again = [{**row, "grade_id": f"again-{row['grade_id']}", "verdict": "incorrect"} for row in graded]
    for row in again:
        del row["run_id"]
    append(lake, "grade", {"grades": again}, inputs=("evaluations",), label="again")
    latest = lake.sql("SELECT DISTINCT verdict FROM grades_latest").to_pylist()
    assert latest == [{"verdict": "incorrect"}]
    query = """
        SELECT DISTINCT verdict, distillation_run FROM evaluation_lineage
        WHERE model = 'student' AND verdict IS NOT NULL
    """
    found = lake.sql(query).to_pylist()
    assert found == [{"verdict": "incorrect", "distillation_run": chain.runs["set"]}]
