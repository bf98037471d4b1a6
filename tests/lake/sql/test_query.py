"""SQL: versions, views, no writes, no file access, and errors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from rlt_data.errors import LakeError
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.lake.sql.views import DERIVED_VIEWS

MakeQuestions = Callable[..., pl.DataFrame]


@pytest.fixture
def filled(lake: Lake, make_questions: MakeQuestions) -> Lake:
    for number in range(4):
        lake.table("questions").append(make_questions(number), run_id=f"run{number}")
    return lake


def hash_tree(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(str(path).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def test_tables_answer_at_the_newest_and_at_older_versions(filled: Lake) -> None:
    query = 'select (select count(*) from questions) new, (select count(*) from "questions@2") old'
    assert filled.sql(query).to_pylist() == [{"new": 4, "old": 2}]


def test_versions_work_in_joins_subqueries_and_common_table_expressions(filled: Lake) -> None:
    query = """
        with early as (select * from "questions@1")
        select count(*) as n from questions
        left join "questions@3" as third using (question_id)
        where question_id not in (select question_id from early) and third.question is not null
    """
    assert filled.sql(query).to_pylist() == [{"n": 2}]


def test_pinned_tables_answer_at_their_versions_by_their_plain_names(filled: Lake) -> None:
    query = 'select (select count(*) from questions) pinned, (select count(*) from "questions@3") third'
    assert filled.sql(query, versions={"questions": 2}).to_pylist() == [{"pinned": 2, "third": 3}]
    nothing = filled.sql("select * from questions", versions={"questions": -1})
    assert (nothing.num_rows, nothing.column_names) == (0, filled.table("questions").schema.arrow.names)
    text = filled.sql("select * from query('select count(*) as n from questions')", versions={"questions": 1})
    assert text.to_pylist() == [{"n": 1}]
    with pytest.raises(LakeError, match="versions 0 to 4 exist"):
        filled.sql("select * from questions", versions={"questions": 9})
    with pytest.raises(LakeError, match="did you mean 'questions'"):
        filled.sql("select 1", versions={"questons": 1})


def test_repeated_column_names_are_numbered(filled: Lake) -> None:
    query = (
        'select a.run_id, b.run_id, 1 as run_id_1 from questions a join "questions@2" b using (question_id)'
    )
    answer = filled.sql(query)
    assert answer.column_names == ["run_id", "run_id_2", "run_id_1"]
    assert answer.column("run_id_2") == answer.column("run_id")


def test_a_version_inside_a_string_stays_a_string(filled: Lake) -> None:
    text = '"questions@99" and "nothing@1"'
    assert filled.sql(f"select '{text}' as t from questions limit 1").to_pylist() == [{"t": text}]


def test_the_catalogue_shows_the_tables_and_nothing_internal(filled: Lake) -> None:
    names = filled.sql("show tables").column("name").to_pylist()
    assert names == sorted([*(t.name for t in filled.tables()), "run_events", *DERIVED_VIEWS])
    described = filled.sql("describe questions").to_pylist()
    assert [row["column_name"] for row in described] == filled.table("questions").schema.arrow.names
    assert filled.sql("select * from query('select count(*) as n from questions')").to_pylist() == [{"n": 4}]
    assert filled.sql("summarize questions").num_rows == 10
    assert filled.sql("explain select * from questions").num_rows >= 1
    assert filled.sql("from questions").num_rows == 4
    pivoted = filled.sql("pivot questions on run_id in ('run0', 'run1') using count(*) group by dataset")
    assert pivoted.to_pylist() == [{"dataset": None, "run0": 1, "run1": 1}]


def test_empty_tables_have_their_columns(lake: Lake) -> None:
    result = lake.sql("select messages[1].role as role, total_tokens + 1 as n from distillation")
    assert result.num_rows == 0
    assert str(result.schema.field("role").type) == "string"
    for table in lake.tables():
        assert lake.sql(f"select * from {table.name}").column_names == table.schema.arrow.names


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("select * from questons", "did you mean 'questions'"),
        ('select * from "questions@99"', "versions 0 to 4 exist"),
        ('select * from "traces@1"', "it is empty"),
        ('select * from "questons@1"', "did you mean 'questions'"),
        ("select foo from questions", "Binder Error: Referenced column"),
        ("selec 1", "Parser Error: syntax error"),
        ("select 1; select 2", "2 statements"),
        ("-- nothing", "the query is empty"),
        ("select 1/'x' from questions", "Conversion Error"),
        ("pivot questions on run_id using count(*)", "list the values of PIVOT"),
    ],
)
def test_errors_say_what_is_wrong(filled: Lake, query: str, message: str) -> None:
    with pytest.raises(LakeError, match=message):
        filled.sql(query)


READS = [
    "select * from read_csv('{file}')",
    "select * from read_text('{file}')",
    "select * from read_blob('{file}')",
    "select * from read_parquet('{file}')",
    "select * from '{file}'",
    "select * from glob('{folder}/*')",
    "select * from sniff_csv('{file}')",
    "select * from parquet_metadata('{file}')",
    "select * from query('select * from read_text(''{file}'')')",
    "with x as (from read_text('{file}')) select * from x",
    "select * from read_text('file://{file}')",
    "select * from read_text('http://127.0.0.1:9/x')",
    "select * from read_text('{folder}/../{name}/secret.csv')",
]
WRITES = [
    "copy (select 1) to '{folder}/out.csv'",
    "copy questions to '{lake_file}' (format parquet)",
    "explain analyze copy (select 1) to '{folder}/out.csv'",
    "/* a */ explain /* b */ analyze copy (select 1) to '{folder}/out.csv'",
    "explain (analyze) copy (select 1) to '{folder}/out.csv'",
    "attach '{folder}/out.db'",
    "export database '{folder}/out'",
    "create table t as select 1",
    "create view t as select 1",
    "insert into questions values (1)",
    "with a as (select 1) insert into t select * from a",
    "update questions set answer = 'x'",
    "delete from questions",
    "drop view questions",
    "install httpfs",
    "load httpfs",
    "set enable_external_access = true",
    "set lock_configuration = false",
    "reset all",
    "pragma database_list",
    "call pragma_version()",
    "checkpoint",
    "vacuum",
    "select * from enable_logging(storage = 'file', storage_path = '{folder}/log')",
    "select set_config('threads', '1', false)",
    "prepare p as select 1",
    "begin",
    "use memory",
]


@pytest.mark.parametrize("query", [*READS, *WRITES])
def test_nothing_but_the_lake_is_read_and_nothing_is_written(
    filled: Lake, tmp_path: Path, query: str
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    secret = folder / "secret.csv"
    secret.write_text("word\nhush\n")
    lake_file = next(Path(filled.uri, "questions").glob("*.parquet"))
    before = hash_tree(tmp_path)
    text = query.format(file=secret, folder=folder, name=folder.name, lake_file=lake_file)
    with pytest.raises(LakeError):
        filled.sql(text)
    assert hash_tree(tmp_path) == before


def test_files_are_read_and_written_where_allowed(filled: Lake, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    filled.sql(f"copy (select question from questions) to '{out}' (header)", allow_files=True)
    found = filled.sql(f"select count(*) as n from read_csv('{out}')", allow_files=True)
    assert found.to_pylist() == [{"n": 4}]


@pytest.mark.parametrize("query", ["delete from questions", "drop view questions", "install httpfs", "begin"])
def test_tables_cannot_be_changed_even_with_file_access(filled: Lake, query: str) -> None:
    with pytest.raises(LakeError, match="are refused"):
        filled.sql(query, allow_files=True)
    with pytest.raises(LakeError, match="httpfs"):
        filled.sql("from read_text('https://127.0.0.1:9/x')", allow_files=True)


def make_scored(lake: Lake, think: str, solution: str) -> None:
    """Append one question, trace and score whose tokens are the single characters of the texts."""
    question_id, trace_id = hash_content("q"), hash_content("t")
    common = {"question_id": [question_id]}
    lake.table("questions").append(
        pl.DataFrame({**common, "question": ["?"], "solution": [solution], "solution_rendered": [False]}),
        run_id="r",
    )
    lake.table("traces").append(
        pl.DataFrame(
            {
                **common,
                "trace_id": [trace_id],
                "sample_index": pl.Series([0], dtype=pl.Int32),
                "origin": ["generated"],
                "completion": [think],
                "think": [think],
                "state": ["closed"],
                "truncated": [False],
            }
        ),
        run_id="r",
    )

    def starts(text: str) -> pl.Series:
        return pl.Series([list(range(len(text)))], dtype=pl.List(pl.Int32))

    def ends(text: str) -> pl.Series:
        return pl.Series([list(range(1, len(text) + 1))], dtype=pl.List(pl.Int32))

    def numbers(text: str, sign: int) -> pl.Series:
        return pl.Series([[sign * float(i) for i in range(len(text))]], dtype=pl.List(pl.Float32))

    values = {
        **common,
        "score_id": [hash_content("s")],
        "trace_id": [trace_id],
        "student": ["small"],
        "teacher": ["large"],
        "backend": ["torch"],
        "dtype": ["float32"],
        "temperature_student": [0.7],
        "solution_logprobs": numbers(solution, -1),
        "think_student_logprobs": numbers(think, -1),
        "think_teacher_logprobs": numbers(think, 1),
        "solution_token_starts": starts(solution),
        "solution_token_ends": ends(solution),
        "think_token_starts": starts(think),
        "think_token_ends": ends(think),
    }
    schema = lake.table("scores").schema
    fillers = {"int32": 1, "bool": True}
    for column in schema.columns:
        if not column.nullable and column.name not in values and column.name != "run_id":
            values[column.name] = pl.Series(
                [fillers[str(column.type)]],
                dtype=pl.Int32 if str(column.type) == "int32" else pl.Boolean,
            )
    lake.table("scores").append(pl.DataFrame(values), run_id="r")


def test_token_scores_show_exactly_the_characters_of_each_token(lake: Lake) -> None:
    """Offsets count code points in Python; SQL must cut at the same offsets in any script."""
    think = "a🙂e\u0301 👩\u200d👩\u200d👧 \U0001f1e9\U0001f1ea ß漢\r\n\ttail"
    solution = "x = ½ 🧮 n\u0303"
    make_scored(lake, think, solution)
    rows = lake.sql("select * from token_scores order by part, position").to_pylist()
    for part, text in (("solution", solution), ("think", think)):
        tokens = [row for row in rows if row["part"] == part]
        assert [row["token"] for row in tokens] == list(text)
        assert [row["position"] for row in tokens] == list(range(len(text)))
        assert [row["student_logprob"] for row in tokens] == [-float(i) for i in range(len(text))]
    teachers = [row["teacher_logprob"] for row in rows if row["part"] == "think"]
    assert teachers == [float(i) for i in range(len(think))]
    assert {row["divergence"] for row in rows} == {None}


def test_views_show_the_pinned_versions_of_their_tables(lake: Lake) -> None:
    make_scored(lake, "abc", "x")
    assert lake.sql("select count(*) as n from token_scores").to_pylist() == [{"n": 4}]
    before = {"scores": lake.table("scores").version() - 1}
    assert lake.sql("select count(*) as n from token_scores", versions=before).to_pylist() == [{"n": 0}]
    without_texts = {"questions": -1, "traces": -1}
    tokens = lake.sql("select distinct token from token_scores", versions=without_texts)
    assert tokens.to_pylist() == [{"token": None}]
