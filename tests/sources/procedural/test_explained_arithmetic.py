"""Explained chains: different problems, styles by weight, options checked."""

from __future__ import annotations

from collections import Counter

import pytest

from rlt_data.errors import UsageError
from rlt_data.lake import Lake
from rlt_data.sources.procedural.arithmetic import classify_explanation, parse_chain
from rlt_data.sources.procedural.explained_arithmetic import PREFIX, open_arithmetic
from rlt_data.sources.rows import SourceRow
from rlt_data.stages.ingest import IngestConfig, ingest

NAME = f"{PREFIX}chain_sum"


def read(**options: object) -> list[dict[str, str]]:
    part = open_arithmetic(NAME, size=400, seed=2, options=options)
    rows = list(part.read())
    assert all(isinstance(row, SourceRow) for row in rows)
    assert [row.number for row in rows] == list(range(400))
    return [row.values for row in rows if isinstance(row, SourceRow)]


def test_problems_differ_and_answers_are_right() -> None:
    rows = read(min_terms=2, max_terms=4)
    assert len({row["question"] for row in rows}) == 400
    lengths = set()
    for row in rows:
        chain = parse_chain(row["question"])
        assert chain is not None
        assert row["answer"] == str(chain.results[-1])
        lengths.add(len(chain.terms))
    assert lengths == {2, 3, 4}


def test_styles_are_drawn_by_weight_and_recorded_correctly() -> None:
    rows = read(good=50, leak=50, skip=0, wrong=0, bogus=0, padded_leak=0, ramble=0)
    styles = Counter(row["style"] for row in rows)
    assert set(styles) == {"good", "leak"}
    assert abs(styles["good"] - 200) < 50
    assert all(classify_explanation(row["question"], row["trace"]) == row["style"] for row in rows)


def test_the_seed_and_the_options_decide() -> None:
    assert read() == read()
    one = open_arithmetic(NAME, size=400, seed=2, options={})
    assert one.identify() == open_arithmetic(NAME, size=400, seed=2, options={"good": 40}).identify()
    assert one.identify() != open_arithmetic(NAME, size=400, seed=3, options={}).identify()
    assert one.identify() != open_arithmetic(NAME, size=400, seed=2, options={"good": 41}).identify()


@pytest.mark.parametrize(
    ("name", "size", "options", "message"),
    [
        (f"{PREFIX}nothing", 1, {}, "there is no generator"),
        (NAME, 1, {"good": "x"}, "option 'good': input should be a valid number"),
        (NAME, 1, {"style": 1}, "has no option 'style'"),
        (NAME, 1, {"min_terms": 4, "max_terms": 3}, "greater than max_terms"),
        (NAME, 3001, {}, "4000 exist"),
        (
            NAME,
            1,
            dict.fromkeys(("good", "skip", "wrong", "bogus", "leak", "padded_leak", "ramble"), 0),
            "every style has the weight 0",
        ),
    ],
)
def test_invalid_configurations_are_refused(
    name: str, size: int, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        open_arithmetic(name, size=size, seed=0, options=options)


def test_they_are_ingested_with_their_traces(lake_folder: str) -> None:
    lake = Lake(lake_folder)
    config = IngestConfig(source=NAME, size=30, seed=1, options={"good": "10"})
    summary = ingest(lake, config)
    assert summary.tables == {"questions": 30, "traces": 30}
    traces = lake.table("traces").scan().collect()
    assert set(traces["state"]) == {"closed"}
    assert traces["think"].null_count() == 0
    assert ingest(lake, config).status == "already finished"


@pytest.fixture
def lake_folder(tmp_path: object) -> str:
    return f"{tmp_path}/lake"
