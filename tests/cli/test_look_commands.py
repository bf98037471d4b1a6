"""init, tables, log, lineage, sql, models, doctor and vacuum over a small lake."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command_line import QuickProgram
from opened_run import open_run

from rlt_data.lake import Lake
from rlt_data.stages.runtime.contract import RunField, StageConfig

QUESTIONS = [
    {
        "question_id": f"q{i}",
        "question": f"what is {i} + 1?\nThink.",
        "solution": str(i + 1),
        "solution_rendered": False,
    }
    for i in range(3)
]
TRACES = [
    {
        "trace_id": f"t{i}",
        "question_id": f"q{i}",
        "sample_index": 0,
        "origin": "generated",
        "completion": "add [bold]one[/bold]",
        "state": "closed",
        "truncated": False,
        "completion_logprobs": [-0.5] * 9,
    }
    for i in range(3)
]


class ReadConfig(StageConfig):
    file: RunField[str]


@pytest.fixture
def filled(quick: QuickProgram, tmp_path: Path) -> QuickProgram:
    """A lake with two runs: one that wrote questions, and one that read them and wrote traces."""
    quick.succeed("init", ".")
    lake = Lake(tmp_path / "lake")
    with open_run(lake, "ingest", ReadConfig(file="a.jsonl"), inputs=(), outputs=("questions",)) as run:
        run.count(rows_in=4)
        run.append("questions", QUESTIONS)
        run.reject(source="a.jsonl", source_row=3, reason="missing_question", detail="no question")
    with open_run(lake, "generate", ReadConfig(file="b"), inputs=("questions",), outputs=("traces",)) as run:
        run.append("traces", TRACES)
    return quick


def test_init_writes_settings_that_are_valid_and_a_lake(quick: QuickProgram, tmp_path: Path):
    from rlt_data.settings import load_settings

    quick.succeed("init", "project")
    assert load_settings(tmp_path / "project" / "rlt-data.toml").lake == "lake"
    assert Lake(tmp_path / "project" / "lake", create=False).runs() == []
    assert "--overwrite" in quick.fail(2, "init", "project")
    quick.succeed("init", "project", "--overwrite")


def test_the_settings_name_the_lake_for_folders_below(filled: QuickProgram, tmp_path: Path):
    below = tmp_path / "below"
    below.mkdir()
    rows = json.loads(QuickProgram(below).succeed("tables", "--json"))
    assert {row["table"]: row["rows"] for row in rows}["questions"] == 3


def test_a_lake_that_is_yet_to_be_made_is_made_beside_its_settings(tmp_path: Path):
    (tmp_path / "rlt-data.toml").write_text('lake = "lake"', encoding="utf-8")
    below = tmp_path / "below"
    below.mkdir()
    (below / "problems.jsonl").write_text('{"question": "1 + 1?", "solution": "2"}', encoding="utf-8")
    QuickProgram(below).succeed("ingest", "problems.jsonl")
    assert Lake(tmp_path / "lake", create=False).table("questions").count() == 1
    assert not (below / "lake").exists()


def test_tables_lists_rows_and_versions(filled: QuickProgram):
    rows = {row["table"]: row for row in json.loads(filled.succeed("tables", "--json"))}
    assert rows["questions"]["rows"] == 3
    assert rows["questions"]["key"] == "question_id"
    assert rows["scores"]["version"] is None
    shown = filled.succeed("tables")
    assert "questions" in shown
    assert "One problem with its true solution." in shown


def test_tables_describes_every_column(filled: QuickProgram):
    from rlt_data.schemas import TABLES

    described = json.loads(filled.succeed("tables", "traces", "--json"))
    assert [column["column"] for column in described["columns"]] == [c.name for c in TABLES["traces"].columns]
    assert "Sampling temperature." in filled.succeed("tables", "traces")
    assert "did you mean 'traces'?" in filled.fail(1, "tables", "trases")


def test_tables_lists_versions_with_the_run_that_wrote_them(filled: QuickProgram):
    versions = json.loads(filled.succeed("tables", "questions", "--versions", "--json"))
    run = json.loads(filled.succeed("log", "--stage", "ingest", "--json"))[0]
    assert run["run_id"] in {version["run"] for version in versions}


def test_log_reports_that_there_are_no_runs(filled: QuickProgram):
    assert "no runs of the stage 'nope'" in filled.succeed("log", "--stage", "nope")
    filled.succeed("init", "empty")
    assert "no runs yet" in filled.succeed("log", "--lake", "empty/lake")


def test_log_lists_runs_newest_first_and_one_in_full(filled: QuickProgram):
    runs = json.loads(filled.succeed("log", "--json"))
    assert [run["stage"] for run in runs] == ["generate", "ingest"]
    assert runs[1]["counts"]["rejected"] == 1
    shown = filled.succeed("log", runs[1]["run_id"][:8])
    assert "a.jsonl" in shown
    assert "status: finished" in shown
    assert "ingest" not in filled.succeed("log", "--limit", "1")
    assert "rlt-data log lists" in filled.fail(1, "log", "zzz").replace("`", "")


def test_lineage_leads_from_a_table_to_its_origin(filled: QuickProgram):
    shown = filled.succeed("lineage", "traces")
    assert shown.index("generate") < shown.index("questions@") < shown.index("ingest")
    steps = json.loads(filled.succeed("lineage", "--json"))
    assert [step["stage"] for step in steps] == ["generate", "ingest"]
    assert steps[0]["inputs"][0]["made_by"] == [steps[1]["run_id"]]
    assert "no run wrote scores" in filled.fail(1, "lineage", "scores")


def test_sql_writes_tables_csv_json_and_parquet(filled: QuickProgram, tmp_path: Path):
    query = (
        "select question_id, question, completion_logprobs "
        "from traces join questions using (question_id) order by 1"
    )
    table = filled.succeed("sql", query)
    assert table.splitlines()[0].split() == ["question_id", "question", "completion_logprobs"]
    assert "what is 0 + 1?\\nThink." in table
    assert "... 5 more]" in table
    rows = json.loads(filled.succeed("sql", query, "--format", "json"))
    assert rows[2]["question"] == "what is 2 + 1?\nThink."
    assert rows[2]["completion_logprobs"] == [-0.5] * 9
    read = list(csv.DictReader(io.StringIO(filled.succeed("sql", query, "--format", "csv"))))
    assert read[1]["question"] == "what is 1 + 1?\nThink."
    assert json.loads(read[1]["completion_logprobs"]) == [-0.5] * 9
    filled.succeed("sql", query, "--format", "parquet", "--output", "answer.parquet")
    assert pq.read_table(tmp_path / "answer.parquet").num_rows == 3
    assert "--output" in filled.fail(2, "sql", query, "--format", "parquet")


def test_sql_keeps_markup_and_nan_as_they_are(filled: QuickProgram):
    assert "add [bold]one[/bold]" in filled.succeed("sql", "select completion from traces limit 1")
    assert json.loads(filled.succeed("sql", "select 'nan'::float as x", "-f", "json")) == [{"x": None}]


def test_sql_reads_the_query_from_a_file_or_stdin(filled: QuickProgram, tmp_path: Path):
    (tmp_path / "count.sql").write_text("select count(*) as n\nfrom questions", encoding="utf-8")
    assert filled.succeed("sql", "count.sql", "-f", "csv") == "n\n3\n"
    assert filled.succeed("sql", "-", "-f", "csv", input="select 7 as n") == "n\n7\n"
    assert filled.succeed("sql", "-f", "csv", input="select 8 as n") == "n\n8\n"


def test_sql_shows_the_first_rows_and_counts_the_others(filled: QuickProgram):
    shown = filled.succeed("sql", "select range from range(500)", "--rows", "3")
    assert "more rows after the first 3" in shown
    assert "more rows" not in filled.succeed("sql", "select range from range(3)", "--rows", "3")
    assert len(filled.succeed("sql", "select range from range(500)", "--rows", "0").splitlines()) == 501


def test_sql_answers_older_versions(filled: QuickProgram):
    versions = json.loads(filled.succeed("tables", "questions", "--versions", "--json"))
    assert [version["version"] for version in versions] == [1, 0]
    for version, rows in ((0, 0), (1, 3)):
        query = f'select count(*) as n from "questions@{version}"'
        assert filled.succeed("sql", query, "-f", "csv") == f"n\n{rows}\n"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("drop table questions", "refused"),
        ("select * from 'rlt-data.toml'", "error:"),
        ("select * from read_text('rlt-data.toml')", "error:"),
        ("copy questions to 'out.csv'", "refused"),
        ("selct 1", "syntax error"),
        ("select * from questons", "questions"),
        ("select 1; select 2", "statements"),
    ],
)
def test_sql_is_read_only_and_explains_what_it_refuses(
    query: str, message: str, filled: QuickProgram, tmp_path: Path
):
    assert message in filled.fail(1, "sql", query)
    assert not (tmp_path / "out.csv").exists()


def test_sql_may_use_files_when_allowed(filled: QuickProgram):
    query = "select count(*) > 0 as there from read_text('rlt-data.toml')"
    assert filled.succeed("sql", query, "-f", "csv", "--allow-files").split()[1].lower() == "true"


def test_models_lists_the_users_own_first(quick: QuickProgram, tmp_path: Path):
    (tmp_path / "rlt-data.toml").write_text('[models.mine]\nmodel = "./absent"\n', encoding="utf-8")
    models = json.loads(quick.succeed("models", "--json"))
    assert models[0]["alias"] == "mine"
    assert models[0]["state"] == "missing"
    assert "qwen7b" in {model["alias"] for model in models}
    assert "qwen7b" in quick.succeed("models")


def test_a_wrong_key_in_the_settings_names_file_line_and_the_nearest_valid_key(
    quick: QuickProgram, tmp_path: Path
):
    (tmp_path / "rlt-data.toml").write_text('lake = "lake"\n[models.mine]\nmodle = "x"\n', encoding="utf-8")
    message = quick.fail(2, "models")
    assert "rlt-data.toml:3" in message
    assert "'model'" in message


def test_doctor_reports_extras_and_the_lake(filled: QuickProgram):
    findings = json.loads(filled.succeed("doctor", "--json"))
    by_name = {finding["name"]: finding for finding in findings}
    assert by_name["torch"]["topic"] == "extra models"
    assert by_name["deltalake"]["state"] in ("ok", "note")
    assert any(finding["topic"] == "lake" and finding["state"] == "ok" for finding in findings)
    assert "ready" in filled.succeed("doctor")


def test_vacuum_is_a_dry_run_unless_applied(filled: QuickProgram, tmp_path: Path):
    files = sorted((tmp_path / "lake").rglob("*.parquet"))
    assert "nothing was changed" in filled.succeed("vacuum", "--retention-hours", "0")
    assert sorted((tmp_path / "lake").rglob("*.parquet")) == files
    before = filled.succeed("sql", "select * from questions order by question_id", "-f", "csv")
    filled.succeed("vacuum", "--apply", "--retention-hours", "0")
    assert filled.succeed("sql", "select * from questions order by question_id", "-f", "csv") == before


def test_a_query_may_be_longer_than_the_name_of_a_file(filled: QuickProgram):
    query = "select count(*) as n from questions where " + " and ".join(
        ["question <> 'nobody asks this'"] * 20
    )
    assert json.loads(filled.succeed("sql", query, "--format", "json")) == json.loads(
        filled.succeed("sql", "select count(*) as n from questions", "--format", "json")
    )


def test_doctor_fails_over_settings_and_lakes_that_cannot_be_read(filled: QuickProgram):
    def find(topic: str) -> dict[str, str]:
        findings = json.loads(filled("doctor", "--json").stdout)
        return next(finding for finding in findings if finding["topic"] == topic)

    filled.succeed("doctor", "--lake", "nowhere")
    for entry in (filled.folder / "lake/questions/_delta_log").glob("*.json"):
        entry.write_text("{broken", encoding="utf-8")
    filled.fail(1, "doctor")
    assert (find("lake")["state"], find("settings")["state"]) == ("wrong", "ok")
    (filled.folder / "rlt-data.toml").write_text("lkae = 1\n", encoding="utf-8")
    filled.fail(1, "doctor", "--lake", "nowhere")
    assert (find("settings")["state"], find("settings")["remedy"]) == ("wrong", "did you mean 'lake'?")
