"""A lake is plain Delta and Parquet: other tools can read it without this program, but not rewrite it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from rlt_data.lake import Lake

MakeQuestions = Callable[..., pl.DataFrame]


def test_delta_polars_duckdb_and_pyarrow_read_a_lake(lake: Lake, make_questions: MakeQuestions) -> None:
    table = lake.table("questions")
    table.append(make_questions(1, 2), run_id="a")
    table.append(make_questions(3), run_id="b")
    delta = DeltaTable(table.uri)
    assert delta.to_pyarrow_table().num_rows == 3
    assert delta.protocol().min_reader_version == 1
    assert delta.history(1)[0]["rlt_data.run_id"] == "b"
    assert pl.read_delta(table.uri, version=1).height == 2
    files = [str(path) for path in Path(table.uri).glob("*.parquet")]
    assert duckdb.sql(f"select count(*) from read_parquet({files})").fetchall() == [(3,)]
    assert sum(pq.read_metadata(file).num_rows for file in files) == 3


def test_delta_tools_cannot_rewrite_rows(lake: Lake, make_questions: MakeQuestions) -> None:
    table = lake.table("questions")
    table.append(make_questions(1, 2), run_id="a")
    with pytest.raises(DeltaError, match="append-only"):
        DeltaTable(table.uri).delete("run_id = 'a'")
    assert table.count() == 2
