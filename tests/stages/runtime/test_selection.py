"""SQL predicates that select a stage's rows: the tables that they query are inputs like any other."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from opened_run import open_run
from small_lake import append_made, make_lake, make_question, make_score, make_trace

from rlt_data.errors import UsageError
from rlt_data.lake import Lake
from rlt_data.lake.sql.query import find_named_tables
from rlt_data.schemas import TABLES
from rlt_data.stages.generate import GenerateConfig, generate
from rlt_data.stages.rank import RankConfig, rank
from rlt_data.stages.registry import STAGES
from rlt_data.stages.runtime.contract import RunField, StageConfig
from rlt_data.stages.runtime.selection import select_rows
from rlt_data.stages.runtime.stage import load_stage
from rlt_data.stages.score import ScoreConfig, score
from rlt_data.training.rl.config import GrpoConfig

UNEXPLAINED = "question_id NOT IN (SELECT question_id FROM traces)"


class ExplainConfig(StageConfig):
    """Of a stage that explains every question twice."""

    where: RunField[str | None] = None


def explain(lake: Lake, config: ExplainConfig, *, stop_after: int | None = None) -> list[str]:
    """Append two traces per question, except existing ones; return the questions that were processed."""
    with open_run(lake, "explain", config, inputs=("questions",), outputs=("traces",)) as run:
        questions = select_rows(run, "questions", config.where).sort("question_id").collect()
        numbers = [int(key[1:]) for key in questions.get_column("question_id")]
        there = set(run.written("traces").collect().get_column("trace_id"))
        rows = [make_trace(number, sample) for number in numbers for sample in range(2)]
        for index, row in enumerate(rows):
            if index == stop_after:
                raise InterruptedError
            if row["trace_id"] not in there:
                run.append("traces", [row])
    return questions.get_column("question_id").to_list()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    made = Lake(tmp_path / "lake")
    append_made(made, "ingest", "questions", [make_question(number) for number in range(3)])
    return made


@pytest.mark.parametrize(
    ("predicate", "tables"),
    [
        ("length(question) > 3", []),
        ("question = 'traces'", []),
        (UNEXPLAINED, ["traces"]),
        ('question_id IN (SELECT question_id FROM "traces@1")', []),
        ("EXISTS (SELECT * FROM Scores s JOIN rankings USING (score_id))", ["scores", "rankings"]),
        ("trace_id IN (SELECT trace_id FROM token_scores)", ["questions", "traces", "scores"]),
        ("run_id IN (SELECT run_id FROM run_events)", ["runs"]),
        ('trace_id IN (SELECT trace_id FROM "Rankings" -- not of scores\n)', ["rankings"]),
        ("is ( no SQL", []),
    ],
)
def test_the_tables_of_subqueries_are_found(predicate: str, tables: list[str]) -> None:
    assert find_named_tables([predicate]) == tables


@pytest.mark.parametrize("explained", [False, True])
def test_an_interruption_does_not_change_what_a_predicate_keeps(lake: Lake, explained: bool) -> None:
    # Without rows of its own a table is at no version yet, or at one that is older than the run.
    if explained:
        append_made(lake, "generate", "traces", [make_trace(0, 0)])
    config = ExplainConfig(where=UNEXPLAINED)
    wanted = ["q1", "q2"] if explained else ["q0", "q1", "q2"]
    for stop_after in (1, 3):
        with pytest.raises(InterruptedError):
            explain(lake, config, stop_after=stop_after)
    assert explain(lake, config) == wanted
    counts = lake.sql("SELECT question_id, count(*) AS n FROM traces GROUP BY 1").to_pylist()
    assert {row["question_id"]: row["n"] for row in counts if row["question_id"] in wanted} == dict.fromkeys(
        wanted, 2
    )
    (run,) = [run for run in lake.runs() if run.stage == "explain"]
    assert run.finished


@pytest.mark.parametrize(
    ("predicate", "kept"),
    [
        ("trace_id NOT IN (SELECT trace_id FROM token_scores)", ["q0t0", "q1t0", "q2t0"]),
        (
            "trace_id NOT IN (SELECT trace_id FROM Token_Scores JOIN scores USING (score_id, trace_id))",
            ["q0t0", "q1t0", "q2t0"],
        ),
        ("(SELECT count(*) FROM run_events) = 4", ["q0t0", "q1t0", "q2t0"]),
        ("(SELECT count(*) FROM run_events WHERE stage = 'rescore') > 0", []),
    ],
)
def test_a_view_in_a_predicate_shows_the_pinned_versions(lake: Lake, predicate: str, kept: list[str]) -> None:
    traces = [make_trace(number, 0) for number in range(3)]
    append_made(lake, "generate", "traces", traces)

    def rescore(stop_after: int | None = None) -> list[str]:
        config = ExplainConfig(where=predicate)
        with open_run(lake, "rescore", config, inputs=("traces",), outputs=("scores",)) as run:
            keys = select_rows(run, "traces", config.where).collect().get_column("trace_id").sort().to_list()
            for trace in [trace for trace in traces if trace["trace_id"] in keys][:stop_after]:
                run.append("scores", [make_score(trace, -1.0)])
            if stop_after is not None:
                raise InterruptedError
        return keys

    with pytest.raises(InterruptedError):
        rescore(stop_after=1)
    append_made(lake, "score", "scores", [make_score(traces[1], -1.0, label="of another run")])
    assert rescore() == kept
    (run,) = [run for run in lake.runs() if run.stage == "rescore"]
    assert run.finished
    assert run.counts["tables"] == {"scores": len(kept)}


def test_a_table_that_a_predicate_queries_identifies_the_run(tmp_path: Path) -> None:
    lake, _ = make_lake(tmp_path, questions=2, samples=2)
    config = RankConfig(where="trace_id IN (SELECT trace_id FROM rewards WHERE reward > -2)")
    rewards = [
        {"reward_id": key, "trace_id": key, "question_id": key[:2], "score_id": key, "student": "student"}
        for key in ("q0t0", "q0t1", "q1t0")
    ]
    append_made(lake, "reward", "rewards", [row | {"reward": -1.0} for row in rewards[:2]], label="first")
    first = rank(lake, config)
    assert rank(lake, config).status == "already finished"
    append_made(lake, "reward", "rewards", [row | {"reward": -1.0} for row in rewards[2:]], label="second")
    second = rank(lake, config)
    assert (first.rows_out, second.status, second.rows_out) == (2, "finished", 3)
    ranked = lake.table("rankings").scan().filter(pl.col("run_id") == second.run_id).collect()
    assert set(ranked.get_column("trace_id")) == {"q0t0", "q0t1", "q1t0"}


def test_a_predicate_that_is_not_sql_is_wrong_usage(lake: Lake) -> None:
    with pytest.raises(UsageError, match="not valid SQL over questions"):
        explain(lake, ExplainConfig(where="is ( no SQL"))


@pytest.mark.parametrize(
    "predicate",
    [
        "1=1) UNION SELECT question_id FROM traces WHERE (1=1",
        "1=1) UNION ALL (SELECT question_id FROM questions",
        "false) OR (true",
        "1=1) ORDER BY (question_id",
        "1=1) LIMIT (1",
        "1=1) GROUP BY (question_id",
        "1=1) --",
        "1=1) /*",
        "1=1 /*",
        "1=1 ORDER BY question_id",
        "1=1 UNION SELECT 'x'",
        "1=1; SELECT 1",
        "1=1; DROP TABLE questions",
        "SELECT true",
        "true, true",
        "'unclosed",
        "$$unclosed",
        '"unclosed',
        "",
        "-- nothing",
    ],
)
def test_a_predicate_that_is_not_one_expression_is_refused(lake: Lake, predicate: str) -> None:
    with pytest.raises(UsageError, match="not valid SQL over questions"):
        explain(lake, ExplainConfig(where=predicate))


@pytest.mark.parametrize(
    "predicate",
    [
        "(1=1) AND (2=2)",
        "question <> ')' -- a comment )",
        "question <> $$) UNION SELECT ($$",
        "/* all */ true",
        "question_id IN (SELECT question_id FROM questions UNION SELECT 'x' ORDER BY 1 LIMIT 10)",
        "EXISTS (WITH q AS (SELECT 1) FROM q)",
        "CASE WHEN true THEN true END",
        "true\n\n",
    ],
)
def test_every_single_expression_is_taken(lake: Lake, predicate: str) -> None:
    assert explain(lake, ExplainConfig(where=predicate)) == ["q0", "q1", "q2"]


def list_predicates() -> list[tuple[str, type[StageConfig], str]]:
    configs = {declaration.name: load_stage(declaration).config for declaration in STAGES}
    return [
        (stage, config, name)
        for stage, config in {**configs, "grpo": GrpoConfig}.items()
        for name in config.model_fields
        if name.startswith("where")
    ]


@pytest.mark.parametrize(("stage", "config", "name"), list_predicates())
def test_the_table_of_every_predicate_is_declared(stage: str, config: type[StageConfig], name: str) -> None:
    table = config.find_table(name)
    assert table in TABLES
    assert f"SQL predicate over {table}" in str(config.model_fields[name].description)


@pytest.mark.parametrize(
    "predicate",
    [
        "1=1) UNION SELECT question_id FROM questions WHERE (1=1",
        "1=1) UNION SELECT * FROM questions --",
        "true LIMIT 1",
        "true; DROP TABLE questions",
        "nothing = 3",
        "question IN (SELECT nothing FROM traces)",
        "",
    ],
)
def test_a_wrong_predicate_is_refused_before_a_model_is_resolved_and_a_run_recorded(
    lake: Lake, predicate: str
) -> None:
    before = len(lake.runs())
    for stage, config in (
        (generate, GenerateConfig(teacher=("no/such-model",), where=predicate)),
        (score, ScoreConfig(students=("no/such-model",), where=predicate)),
        (rank, RankConfig(where_scores=predicate)),
    ):
        with pytest.raises(UsageError, match="the predicate is not valid SQL over") as raised:
            stage(lake, config)
        assert repr(predicate) in str(raised.value.where)
        with pytest.raises(UsageError, match="the predicate is not valid SQL over"):
            stage.plan(lake, config)
    assert len(lake.runs()) == before
