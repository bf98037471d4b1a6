"""The score stage over real tables and models: the golden numbers, and how unusual rows are handled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from stages.score.golden_lake import build_golden_lake, read_cases

from rlt_data.errors import ModelError, StageStoppedError, UsageError
from rlt_data.lake import Lake
from rlt_data.models import load_tokenizer, resolve_model
from rlt_data.reward.settings import RewardSettings
from rlt_data.stages.score import ScoreConfig, score

TOLERANCE = 1e-4


def read_scores(lake: Lake) -> dict[str, dict[str, Any]]:
    frame = lake.table("scores").scan().collect()
    return {row["trace_id"]: row for row in frame.iter_rows(named=True)}


def check_golden(rows: dict[str, dict[str, Any]], golden: Path) -> None:
    for number, case in enumerate(read_cases(golden)["cases"]):
        expected, row = case["expected"], rows[f"golden-{number}"]
        assert row["solution_tokens"] == expected["solution_tokens"]
        assert row["think_tokens"] == expected["think_tokens"]
        for name in ("reward", "solution_logprob_avg", "solution_logprob_min", "kl_avg", "kl_max"):
            assert row[name] == pytest.approx(expected[name], abs=TOLERANCE), (number, name)
        assert row["format_penalty"] == expected["format_penalty"]
        assert row["solution_logprobs"] == pytest.approx(expected["solution_logprobs"], abs=TOLERANCE)
        pairs = zip(row["think_teacher_logprobs"], row["think_student_logprobs"], strict=True)
        assert [t - s for t, s in pairs] == pytest.approx(expected["think_kl"], abs=TOLERANCE)


@pytest.mark.parametrize("options", [{}, {"exact": True}, {"pack_tokens": 200, "batch_tokens": 500}])
def test_golden_cases(golden: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    lake, format_path = build_golden_lake(golden, tmp_path)
    config = ScoreConfig(students=(str(golden / "student"),), format=format_path, **options)
    summary = score(lake, config)
    assert (summary.rows_in, summary.rows_out, summary.rejected, summary.truncated) == (12, 12, 0, 2)
    check_golden(read_scores(lake), golden)


def test_token_spans_spell_the_texts(golden: Path, tmp_path: Path) -> None:
    lake, format_path = build_golden_lake(golden, tmp_path)
    score(lake, ScoreConfig(students=(str(golden / "student"),), format=format_path))
    traces = lake.table("traces").scan().select("trace_id", "think").collect()
    thinks = dict(traces.iter_rows())
    for trace_id, row in read_scores(lake).items():
        think = thinks[trace_id]
        pieces = [think[a:b] for a, b in zip(row["think_token_starts"], row["think_token_ends"], strict=True)]
        # Byte tokens of one character repeat it; otherwise the pieces are the text.
        assert "".join(dict.fromkeys(think)) == "".join(dict.fromkeys("".join(pieces)))


def test_scored_once(golden: Path, tmp_path: Path) -> None:
    lake, format_path = build_golden_lake(golden, tmp_path)
    config = ScoreConfig(students=(str(golden / "student"),), format=format_path)
    score(lake, config)
    assert score(lake, config).status == "already finished"
    other = config.model_copy(update={"reward": RewardSettings(alpha=0.5)})
    summary = score(lake, other)
    assert summary.rows_out == 0
    assert any("scored before" in note for note in summary.notes)
    assert score(lake, config, force=True).rows_out == 12
    assert lake.table("scores").count() == 24


def test_two_students_in_one_pass(golden: Path, tmp_path: Path) -> None:
    lake, format_path = build_golden_lake(golden, tmp_path)
    names = (str(golden / "student"), str(golden / "teacher"))
    score(lake, ScoreConfig(students=names, format=format_path, exact=True))
    frame = lake.table("scores").scan().collect()
    assert frame.height == 24
    check_golden(
        {r["trace_id"]: r for r in frame.filter(pl.col("student") == names[0]).iter_rows(named=True)},
        golden,
    )
    # The teacher as its own student: it read another prompt, so the divergence is positive but exact.
    own = frame.filter(pl.col("student") == names[1])
    assert own.get_column("think_divergences").explode().min() >= 0


def test_without_a_teacher_r_ss_alone_is_scored(golden: Path, tmp_path: Path) -> None:
    lake, format_path = build_golden_lake(golden, tmp_path, imported=True)
    config = ScoreConfig(students=(str(golden / "student"),), format=format_path)
    summary = score(lake, config)
    assert any("name no teacher" in note for note in summary.notes)
    for number, row in read_scores(lake).items():
        case = read_cases(golden)["cases"][int(number.removeprefix("golden-"))]
        assert row["teacher"] is None
        assert row["think_teacher_logprobs"] is None
        assert row["kl_avg"] is None
        assert row["lambda_kl"] == 0
        assert row["solution_logprob_avg"] == pytest.approx(
            case["expected"]["solution_logprob_avg"], abs=TOLERANCE
        )
        assert row["reward"] == pytest.approx(row["r_ss"] + row["format_penalty"])


def test_imported_traces_scored_against_a_named_teacher(golden: Path, tmp_path: Path) -> None:
    lake, format_path = build_golden_lake(golden, tmp_path, imported=True)
    config = ScoreConfig(
        students=(str(golden / "student"),),
        teacher=str(golden / "teacher"),
        format=format_path,
    )
    score(lake, config)
    check_golden(read_scores(lake), golden)


def test_odd_rows_are_rejected_by_name(golden: Path, tmp_path: Path) -> None:
    lake, format_path = build_golden_lake(golden, tmp_path)
    question_id = lake.table("questions").scan().select("question_id").collect().item(0, 0)
    teacher = str(golden / "teacher")

    def make_trace(trace_id: str, **columns: Any) -> dict[str, Any]:
        row = {
            "trace_id": trace_id,
            "question_id": question_id,
            "sample_index": 0,
            "origin": "generated",
            "completion": "",
            "think": "",
            "state": "closed",
            "truncated": False,
            "teacher": "golden-teacher",
            "teacher_model": teacher,
        }
        return row | columns

    rows = [
        make_trace("unknown", question_id="nowhere", think="a"),
        make_trace("no-think", think=None, state="missing_open"),
        make_trace("too-long", think="word " * 6000),
        make_trace("empty", think="", state="empty"),
    ]
    frame = pl.DataFrame(rows, schema_overrides={"think": pl.String})
    lake.table("traces").append(frame, run_id="odd")
    config = ScoreConfig(
        students=(str(golden / "student"),),
        format=format_path,
        where="trace_id not like 'golden%'",
    )
    summary = score(lake, config)
    rejects = lake.table("rejects").scan().select("key", "reason", "detail").collect().rows()
    reasons = {key: reason for key, reason, _ in rejects}
    assert reasons == {
        "unknown": "unknown_question",
        "no-think": "no_explanation",
        "too-long": "over_context",
    }
    assert (summary.rows_in, summary.rows_out, summary.rejected) == (4, 1, 3)
    row = read_scores(lake)["empty"]
    assert row["think_tokens"] == 0
    assert row["kl_avg"] == row["kl_max"] == 0
    assert row["reward"] == row["r_ss"]


def test_a_teacher_whose_weights_changed_is_refused(golden: Path, tmp_path: Path) -> None:
    lake, format_path = build_golden_lake(golden, tmp_path)
    trace = lake.table("traces").scan().collect().head(1)
    changed = trace.with_columns(
        pl.lit("other").alias("trace_id"), pl.lit("0" * 32).alias("teacher_revision")
    )
    lake.table("traces").append(changed.drop("run_id"), run_id="changed")
    with pytest.raises(ModelError, match="not those that wrote"):
        score(lake, ScoreConfig(students=(str(golden / "student"),), format=format_path))


def test_a_predicate_that_is_not_sql_is_refused(golden: Path, tmp_path: Path) -> None:
    lake, format_path = build_golden_lake(golden, tmp_path)
    config = ScoreConfig(students=(str(golden / "student"),), format=format_path, where="nothing = ")
    with pytest.raises(UsageError, match="not valid SQL"):
        score(lake, config)


def test_the_exact_divergence_needs_a_teacher() -> None:
    with pytest.raises(ValueError, match="needs a teacher"):
        ScoreConfig(students=("a",), teacher="none", reward=RewardSettings(estimator="full"))


def add_engine_logprobs(lake: Lake, golden: Path, shift: float = 0.0) -> Lake:
    """A second lake whose traces carry sampled tokens and their log-probabilities."""
    tokenizer = load_tokenizer(resolve_model(str(golden / "teacher"), role="teacher"))
    scores = read_scores(lake)
    traces = lake.table("traces").scan().drop("run_id").collect().to_dicts()
    for trace in traces:
        ids = tokenizer(trace["completion"], add_special_tokens=False)["input_ids"]
        known = scores[trace["trace_id"]]["think_teacher_logprobs"]
        trace |= {
            "completion_token_ids": ids,
            "completion_logprobs": [value + shift for value in known] + [-1.0] * (len(ids) - len(known)),
            "logprob_mode": "processed",
            "logprob_dtype": "float32",
            "temperature": 0.7,
            "top_p": 1.0,
            "top_k": 0,
        }
    other = Lake(Path(lake.uri).parent / f"engine{shift}")
    other.table("questions").append(lake.table("questions").scan().drop("run_id").collect(), run_id="copy")
    schema = lake.table("traces").scan().drop("run_id").collect_schema()
    other.table("traces").append(pl.DataFrame(traces, schema=schema), run_id="copy")
    return other


def test_log_probabilities_of_the_engine_are_not_computed_again(golden: Path, tmp_path: Path) -> None:
    lake, format_path = build_golden_lake(golden, tmp_path)
    config = ScoreConfig(students=(str(golden / "student"),), format=format_path)
    score(lake, config)
    sampled = add_engine_logprobs(lake, golden)
    summary = score(sampled, config)
    rows = read_scores(sampled)
    check_golden(rows, golden)
    sources = {row["teacher_source"] for row in rows.values()}
    assert "engine" in sources
    assert summary.extra["engine_gap"]["mean"] < 1e-5
    # A completion without its closing tag merges with it in the rendered text, or not: both are right.
    assert sum(row["teacher_source"] == "engine" for row in rows.values()) >= 10
    assert summary.extra["teacher_logprobs_reused"] >= 10
    again = score(sampled, config.model_copy(update={"rescore_teacher": True}))
    assert again.rows_out == 12
    assert "engine_gap" not in again.extra


def test_log_probabilities_that_are_off_stop_the_stage(golden: Path, tmp_path: Path) -> None:
    lake, format_path = build_golden_lake(golden, tmp_path)
    config = ScoreConfig(students=(str(golden / "student"),), format=format_path)
    score(lake, config)
    sampled = add_engine_logprobs(lake, golden, shift=0.4)
    with pytest.raises(StageStoppedError, match=r"differ from those of torch by 0\.4"):
        score(sampled, config)
    assert sampled.table("scores").count() == 0


def test_noise_check_and_estimate(golden: Path, tmp_path: Path) -> None:
    lake, format_path = build_golden_lake(golden, tmp_path)
    config = ScoreConfig(
        students=(str(golden / "student"),),
        format=format_path,
        dtype="bfloat16",
        noise_check=6,
        estimate_from=4,
        memory="300MiB",
    )
    summary = score(lake, config)
    report = summary.extra["noise_check"]
    assert report["rows"] == 6
    assert 1e-4 < report["parts"]["reward"]["mean"] < 0.5
    assert any(note.startswith("noise over 6 rows") for note in summary.notes)
    assert summary.extra["estimate"]["seconds"] > 0
    assert summary.extra["estimate"]["working_bytes"] <= 300 * 2**20
    assert set(lake.table("scores").scan().collect().get_column("dtype")) == {"bfloat16"}
    exact = score(lake, config.model_copy(update={"dtype": "float32", "noise_check": 12}))
    assert exact.extra["noise_check"]["parts"]["reward"]["largest"] < 1e-4


def test_limit_scores_the_first_traces_question_by_question(golden: Path, tmp_path: Path) -> None:
    lake, format_path = build_golden_lake(golden, tmp_path)
    config = ScoreConfig(students=(str(golden / "student"),), format=format_path, limit=4)
    assert score(lake, config).rows_out == 4
    traces = lake.table("traces").scan().sort("question_id", "trace_id").collect()
    assert set(read_scores(lake)) == set(traces.get_column("trace_id").head(4))
    rest = score(lake, config.model_copy(update={"limit": None}))
    assert rest.rows_out == 8
