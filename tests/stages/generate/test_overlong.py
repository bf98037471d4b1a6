"""Several teachers in one corpus, and explanations that are too long for the student."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from stages.generate.test_generate import (
    StoppingReporter,
    make_config,
    make_lake,
    read_rejects,
    read_traces,
    strip_run,
)
from tiny_models import save_tiny_model

from rlt_data.errors import UsageError
from rlt_data.formats import load_format, render_student_text
from rlt_data.lake import Lake
from rlt_data.models import load_tokenizer, resolve_model
from rlt_data.settings import Settings
from rlt_data.stages.generate import GenerateConfig, generate

SAMPLES = 8
LIMIT = 90


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "other", seed=7)


def make_strict(model: Path, over_context: str, **options: Any) -> GenerateConfig:
    given = {"format": "r1", "samples": SAMPLES, "student": str(model), "student_context": LIMIT}
    return make_config(model, over_context=over_context, **{**given, **options})


def count_student_tokens(lake: Lake, model: Path) -> dict[str, int]:
    """Tokens of the student text of every trace, counted anew."""
    tokenizer = load_tokenizer(resolve_model(str(model), role="student", settings=Settings()))
    questions = lake.table("questions").scan().select("question_id", "question", "solution")
    rows = lake.table("traces").scan().join(questions, on="question_id").collect().to_dicts()
    format = load_format("r1")
    return {
        row["trace_id"]: len(
            tokenizer.encode(
                render_student_text(format, tokenizer, row["question"], row["think"], row["solution"]).text,
                add_special_tokens=False,
            )
        )
        for row in rows
    }


def test_two_teachers_fill_one_corpus(tmp_path: Path, tiny_model: Path, other_model: Path) -> None:
    lake = make_lake(tmp_path)
    both = (str(tiny_model), str(other_model))
    summary = generate(lake, make_config(tiny_model, teacher=both))
    rows = read_traces(lake)
    assert (summary.rows_in, summary.rows_out) == (24, 24)
    assert [summary.extra[name]["rows_per_second"] > 0 for name in both] == [True, True]
    assert len(rows) == len({row["trace_id"] for row in rows}) == 24
    by_teacher = {name: [row for row in rows if row["teacher"] == name] for name in both}
    assert {name: len(found) for name, found in by_teacher.items()} == dict.fromkeys(both, 12)
    for name, found in by_teacher.items():
        revision = resolve_model(name, role="teacher", settings=Settings()).revision
        assert {(row["teacher_model"], row["teacher_revision"]) for row in found} == {(name, revision)}
        assert len({row["generation_id"] for row in found}) == 1
    assert len({row["generation_id"] for row in rows}) == 2
    assert generate(lake, make_config(tiny_model)).rows_out == 0, "made already"
    assert lake.table("traces").count() == 24


def test_a_run_of_two_teachers_resumes_where_it_was_interrupted(
    tmp_path: Path, tiny_model: Path, other_model: Path
) -> None:
    whole, parts = make_lake(tmp_path / "whole"), make_lake(tmp_path / "parts")
    config = make_config(tiny_model, teacher=(str(tiny_model), str(other_model)), max_batch_rows=4)
    generate(whole, config)
    for rows in (7, 9):
        with pytest.raises(KeyboardInterrupt):
            generate(parts, config, reporter=StoppingReporter(rows))
    summary = generate(parts, config)
    assert (summary.rows_in, summary.rows_out) == (24, 24)
    names = ("trace_id", "completion", "teacher", "seed")
    assert [[row[n] for n in names] for row in strip_run(read_traces(parts))] == [
        [row[n] for n in names] for row in strip_run(read_traces(whole))
    ]


def test_a_teacher_named_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="given twice"):
        GenerateConfig(teacher=("a", "a"))


def test_kept_explanations_are_counted(tmp_path: Path, tiny_model: Path) -> None:
    lake = make_lake(tmp_path)
    summary = generate(lake, make_strict(tiny_model, "keep"))
    lengths = count_student_tokens(lake, tiny_model)
    over = sum(length > LIMIT for length in lengths.values())
    assert len(lengths) == 4 * SAMPLES
    assert 0 < over < len(lengths)
    assert summary.extra["over_long_kept"] == over


def test_the_summary_reports_that_none_is_over_long(tmp_path: Path, tiny_model: Path) -> None:
    config = make_strict(tiny_model, "resample", samples=1, student_context=10_000)
    extra = generate(make_lake(tmp_path), config).extra
    names = ("over_long_recollected", "over_long_draws", "over_long_lost")
    assert [extra[name] for name in names] == [0, 0, 0]


def test_dropped_explanations_are_rejects(tmp_path: Path, tiny_model: Path) -> None:
    kept, lake = make_lake(tmp_path / "kept"), make_lake(tmp_path / "dropped")
    generate(kept, make_strict(tiny_model, "keep"))
    lengths = count_student_tokens(kept, tiny_model)
    summary = generate(lake, make_strict(tiny_model, "drop"))
    fitting = {trace_id for trace_id, length in lengths.items() if length <= LIMIT}
    assert {row["trace_id"] for row in read_traces(lake)} == fitting
    rejects = read_rejects(lake)
    assert {row["key"] for row in rejects} == lengths.keys() - fitting
    assert {row["reason"] for row in rejects} == {"over_student_context"}
    assert all(f"the student's context is {LIMIT}" in row["detail"] for row in rejects)
    assert summary.extra["over_long_lost"] == summary.rejected == len(rejects) > 0


def test_resampled_explanations_are_drawn_until_they_fit(tmp_path: Path, tiny_model: Path) -> None:
    first, lake, parts = (make_lake(tmp_path / name) for name in ("first", "whole", "parts"))
    generate(first, make_strict(tiny_model, "keep"))
    over = {id for id, length in count_student_tokens(first, tiny_model).items() if length > LIMIT}
    config = make_strict(tiny_model, "resample", resamples=3, max_batch_rows=4)
    summary = generate(lake, config)
    rows, rejects = read_traces(lake), read_rejects(lake)
    assert max(count_student_tokens(lake, tiny_model).values()) <= LIMIT
    assert len(rows) + len(rejects) == 4 * SAMPLES == summary.rows_in
    recollected = summary.extra["over_long_recollected"]
    assert recollected > 0
    assert recollected + summary.extra.get("over_long_lost", 0) == len(over)
    assert all("all 4 samples were over-long" in row["detail"] for row in rejects)
    firsts = {row["seed"]: row["completion"] for row in read_traces(first)}
    assert sum(row["seed"] not in firsts for row in rows) == recollected
    assert all(firsts[row["seed"]] == row["completion"] for row in rows if row["seed"] in firsts)
    with pytest.raises(KeyboardInterrupt):
        generate(parts, config, reporter=StoppingReporter(9))
    resumed = generate(parts, config)
    assert [row["completion"] for row in read_traces(parts)] == [row["completion"] for row in rows]
    for name in ("over_long_recollected", "over_long_lost", "over_long_draws"):
        assert resumed.extra.get(name, 0) == summary.extra.get(name, 0), name


def test_resampling_is_a_generation_of_its_own(tmp_path: Path, tiny_model: Path) -> None:
    lake = make_lake(tmp_path)
    generate(lake, make_strict(tiny_model, "keep", samples=1))
    before = lake.table("traces").count()
    generate(lake, make_strict(tiny_model, "drop", samples=1))
    assert lake.table("traces").count() == before, "what is dropped was sampled alike"
    generate(lake, make_strict(tiny_model, "resample", samples=1))
    generate(lake, make_strict(tiny_model, "resample", samples=1, student_context=LIMIT + 1))
    generations = lake.table("traces").scan().select(pl.col("generation_id").n_unique()).collect().item()
    assert generations == 3


def test_overlong_needs_a_student(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(ValueError, match="needs a student"):
        make_config(tiny_model, over_context="drop")
    whole = make_lake(tmp_path)
    config = make_config(tiny_model, over_context="drop", student=str(tiny_model), samples=1)
    summary = generate(whole, config)
    assert summary.rejected == 4, "a stratos text is longer than the whole context of this model"
    with pytest.raises(UsageError, match="secret"):
        make_config(tiny_model, engine_options={"hf_token": "x"})
