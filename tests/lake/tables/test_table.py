"""Appends, versions, scans, counts and digests of one table."""

from __future__ import annotations

import tempfile
from collections.abc import Callable

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlt_data.errors import LakeError
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.lake.tables.digest import digest_keys
from rlt_data.schemas import TABLES

MakeQuestions = Callable[..., pl.DataFrame]


def test_an_empty_table_has_the_schema_and_no_version(lake: Lake) -> None:
    table = lake.table("traces")
    assert table.scan().collect().is_empty()
    assert table.scan().collect_schema().names() == table.schema.arrow.names
    assert table.to_arrow().schema == table.schema.arrow
    assert (table.count(), table.version(), table.versions()) == (0, -1, [])
    assert table.state().version == -1


def test_appended_rows_come_back_with_exactly_the_schema(lake: Lake, make_questions: MakeQuestions) -> None:
    table = lake.table("questions")
    table.append(make_questions(1, 2, 3), run_id="run")
    stored = table.to_arrow()
    assert stored.schema == table.schema.arrow
    assert set(stored.column("question").to_pylist()) == {f"What is {n} + {n}?" for n in (1, 2, 3)}
    assert stored.column("answer").null_count == 3
    assert set(stored.column("run_id").to_pylist()) == {"run"}
    assert table.to_arrow(columns=["solution", "question_id"]).column_names == ["solution", "question_id"]


def test_every_type_of_every_table_survives_a_round_trip(lake: Lake) -> None:
    values: dict[str, object] = {
        "string": "ü\n\x1f🙂",
        "bool": True,
        "int32": 2**31 - 1,
        "int64": -(2**63),
        "float": 0.5,
        "double": 0.1,
        "timestamp[us, tz=UTC]": 1_700_000_000_000_001,
    }

    def example(type_: pa.DataType) -> object:
        if pa.types.is_list(type_):
            return [example(type_.value_type)] * 2
        if pa.types.is_struct(type_):
            return {field.name: example(field.type) for field in type_}
        return values[str(type_)]

    for table in lake.tables():
        full = {field.name: [example(field.type)] for field in table.schema.arrow}
        rows = pa.table({n: pa.array(v, table.schema.arrow.field(n).type) for n, v in full.items()})
        table.append(rows.cast(table.schema.arrow), run_id="run")
        assert table.to_arrow().to_pylist() == rows.to_pylist(), table.name
        assert table.scan().collect().to_arrow().to_pylist() == rows.to_pylist(), table.name
        if table.name != "runs":
            assert lake.sql(f"select * from {table.name}").to_pylist() == rows.to_pylist(), table.name


def test_older_versions_stay_readable(lake: Lake, make_questions: MakeQuestions) -> None:
    table = lake.table("questions")
    first = table.append(make_questions(1), run_id="a")
    second = table.append(make_questions(2, 3), run_id="b", metadata={"rlt_data.stage": "ingest"})
    assert (table.count(first), table.count(second), table.count()) == (1, 3, 3)
    assert table.scan(first).collect().height == 1
    assert table.to_arrow(first).num_rows == 1
    newest = table.versions()[0]
    assert (newest.version, newest.run_id, newest.rows_added) == (second, "b", 2)
    assert newest.metadata["rlt_data.stage"] == "ingest"
    assert [v.version for v in table.versions()] == list(range(second, -1, -1))


def test_an_unknown_version_is_refused_with_the_existing_ones(
    lake: Lake, make_questions: MakeQuestions
) -> None:
    table = lake.table("questions")
    with pytest.raises(LakeError, match="it is empty"):
        table.scan(0)
    table.append(make_questions(1), run_id="a")
    for wrong in (9, -2):
        with pytest.raises(LakeError, match="versions 0 to 1 exist"):
            table.scan(wrong)


def test_an_unknown_table_is_refused_with_the_nearest_name(lake: Lake) -> None:
    with pytest.raises(LakeError, match="did you mean 'traces'"):
        lake.table("trace")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": pl.lit("red")}, "no column 'colour'"),
        ({"question": pl.lit(None, pl.String)}, "must not be null, but 2 of"),
        ({"source_row": pl.lit("three")}, "do not fit a column of type int64"),
        ({"solution_rendered": pl.lit(2.5)}, "do not fit a column of type bool"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_column(
    lake: Lake, make_questions: MakeQuestions, change: dict[str, pl.Expr], message: str
) -> None:
    with pytest.raises(LakeError, match=message):
        lake.table("questions").append(make_questions(1, 2).with_columns(**change), run_id="a")
    assert lake.table("questions").count() == 0


def test_a_missing_required_column_is_named(lake: Lake, make_questions: MakeQuestions) -> None:
    with pytest.raises(LakeError, match="required column 'solution' is missing"):
        lake.table("questions").append(make_questions(1).drop("solution"), run_id="a")


def test_the_same_chunk_is_stored_once(lake: Lake, make_questions: MakeQuestions) -> None:
    for name in ("questions", "rejects"):
        table = lake.table(name)
        rows = make_questions(1, 2)
        if name == "rejects":
            rows = rows.select(
                reject_id="question_id",
                stage=pl.lit("test"),
                source=pl.lit("file"),
                reason=pl.lit("bad"),
                detail=pl.lit("it is"),
            )
        version = table.append(rows, run_id="a")
        assert table.append(rows.reverse(), run_id="b") == version
        assert Lake(lake.uri).table(name).append(rows, run_id="c") == version
        assert table.count() == 2


def test_an_explicit_chunk_id_identifies_the_chunk(lake: Lake, make_questions: MakeQuestions) -> None:
    table = lake.table("questions")
    assert table.commit(make_questions(1), run_id="a", chunk_id="x").written
    assert not table.commit(make_questions(2), run_id="a", chunk_id="x").written
    assert table.count() == 1


def test_appending_no_rows_adds_no_version(lake: Lake, make_questions: MakeQuestions) -> None:
    table = lake.table("questions")
    table.append(make_questions(1), run_id="a")
    before = table.version()
    assert table.append(make_questions(), run_id="a") == before == table.version()


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_partition_order_and_repetition_gives_the_same_table(
    data: st.DataObject, make_questions: MakeQuestions
) -> None:
    numbers = data.draw(st.lists(st.integers(0, 30), unique=True, min_size=1, max_size=12))
    chunks: list[list[int]] = []
    rest = data.draw(st.permutations(numbers))
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        chunks.append(list(rest[:size]))
        rest = rest[size:]
    chunks += data.draw(st.lists(st.sampled_from(chunks), max_size=3))
    chunks.append(data.draw(st.lists(st.sampled_from(numbers), min_size=1, max_size=4)))  # overlaps others
    order = data.draw(st.permutations(chunks))
    with tempfile.TemporaryDirectory() as folder:
        table = Lake(folder).table("questions")
        for chunk in order:
            table.append(make_questions(*chunk), run_id="a")
        expected = make_questions(*numbers)
        stored = table.scan().select(expected.columns).sort("question_id").collect()
        assert stored.equals(expected.sort("question_id"))
        assert table.state().digest == digest_keys(expected.get_column("question_id"))
        assert table.state().rows == len(numbers)


@given(st.lists(st.one_of(st.text(max_size=5), st.integers(0, 3).map(hash_content))), st.randoms())
def test_the_digest_depends_only_on_the_set_of_keys(keys: list[str], random: object) -> None:
    series = pl.Series(keys, dtype=pl.String)
    assert digest_keys(series) == digest_keys(series.sort()) == digest_keys(series.reverse())
    assert digest_keys(series) != digest_keys(pl.Series([*keys, "more"], dtype=pl.String))


def test_the_digest_can_be_computed_in_sql(lake: Lake, make_questions: MakeQuestions) -> None:
    table = lake.table("questions")
    table.append(make_questions(*range(50)), run_id="a")
    pieces = ", ".join(
        f"sum(('0x' || substring(question_id, {start}, 15))::HUGEINT)::VARCHAR AS s{start}"
        for start in (1, 16)
    )
    row = lake.sql(f"select count(*) AS n, {pieces} from questions").to_pylist()[0]
    assert table.state().digest == hash_content(row["n"], row["s1"], row["s16"])


def test_a_lake_has_every_table_of_the_schemas(lake: Lake) -> None:
    assert [table.name for table in lake.tables()] == list(TABLES)
