"""The generate stage over a real lake and a tiny teacher: rows, identity, resume, and when it stops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tiny_models import save_tiny_model

from rlt_data.engines import derive_sample_seed
from rlt_data.errors import ModelError, StageStoppedError, UsageError
from rlt_data.formats import load_format
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.models import ModelIdentity, load_tokenizer, resolve_model
from rlt_data.progress import Reporter, Task
from rlt_data.settings import Settings
from rlt_data.stages.generate import GenerateConfig, generate
from rlt_data.stages.generate.requests import describe_generation
from rlt_data.stages.generate.truncation_limit import TruncationLimit
from rlt_data.stages.runtime.engine_models import EngineModel

QUESTIONS = [
    ("How many dollars are 3 eggs at $2?", "3 * 2 = 6"),
    ("What is 3 + 4?", "7"),
    ("What is 7 times 2, and why?", "7 * 2 = 14\n#### 14"),
    ("Ein Ei kostet 2€ — 12 Eier?", "24"),
]


def make_lake(directory: Path, questions: list[tuple[str, str]] = QUESTIONS) -> Lake:
    lake = Lake(directory)
    rows = [
        {
            "question_id": hash_content("question", question),
            "question": question,
            "solution": solution,
            "solution_rendered": False,
            "dataset": "test",
            "source": "test.jsonl",
            "source_row": row,
            "run_id": "test",
        }
        for row, (question, solution) in enumerate(questions)
    ]
    lake.table("questions").append(pl.DataFrame(rows), run_id="test")
    return lake


def make_config(model: Path, **options: Any) -> GenerateConfig:
    defaults: dict[str, Any] = {
        "teacher": str(model),
        "samples": 3,
        "max_tokens": 24,
        "engine": "transformers",
        "device": "cpu",
        "allow_truncated": True,
    }
    return GenerateConfig(**{**defaults, **options})


def read_traces(lake: Lake) -> list[dict[str, Any]]:
    rows = lake.table("traces").scan().sort("trace_id").collect().to_dicts()
    return rows


def strip_run(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "run_id"} for row in rows]


def read_rejects(lake: Lake) -> list[dict[str, Any]]:
    return lake.table("rejects").scan().collect().to_dicts()


class StoppingReporter(Reporter):
    """A user who presses Ctrl-C after so many rows."""

    def __init__(self, rows: int) -> None:
        super().__init__(quiet=True)
        self._rows = rows

    @contextmanager
    def track(self, description: str, total: int | None, unit: str = "rows") -> Iterator[Task]:
        yield _StoppingTask(self._rows)


class _StoppingTask(Task):
    def __init__(self, rows: int) -> None:
        super().__init__()
        self._rows = rows

    def advance(self, n: int = 1, tokens: int = 0) -> None:
        super().advance(n, tokens)
        if self.done >= self._rows:
            raise KeyboardInterrupt


def test_every_trace_records_what_made_it(tmp_path: Path, tiny_model: Path) -> None:
    lake = make_lake(tmp_path)
    summary = generate(lake, make_config(tiny_model, seed=5))
    rows = read_traces(lake)
    identity = resolve_model(str(tiny_model), role="teacher", settings=Settings())
    tokenizer = load_tokenizer(identity)
    assert len(rows) == len(QUESTIONS) * 3 == summary.rows_in == summary.rows_out
    assert len({row["trace_id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["teacher"] == row["teacher_model"] == str(tiny_model)
        assert row["teacher_revision"] == identity.revision
        assert row["engine"].startswith("transformers ")
        assert (row["origin"], row["format"], row["run_id"]) == ("generated", "stratos", summary.run_id)
        assert row["trace_id"] == hash_content(row["question_id"], row["generation_id"], row["sample_index"])
        assert row["seed"] == derive_sample_seed(5, row["question_id"], row["sample_index"])
        assert (row["temperature"], row["top_p"], row["top_k"], row["max_tokens"]) == (0.7, 1.0, 0, 24)
        assert (row["logprob_mode"], row["logprob_dtype"]) == ("processed", "float32")
        ids = row["completion_token_ids"]
        assert len(ids) == len(row["completion_logprobs"]) == row["completion_tokens"]
        assert row["truncated"] == (row["finish_reason"] == "length")
        assert row["state"] == "missing_close"
        assert row["think"] == row["completion"]
        written = ids[:-1] if row["finish_reason"] == "end" else ids
        assert tokenizer.decode(written, skip_special_tokens=False) == row["completion"]
    assert summary.tokens == sum(row["completion_tokens"] for row in rows)
    assert summary.truncated == sum(row["truncated"] for row in rows) > 0
    assert summary.truncated_share == summary.truncated / len(rows)
    assert summary.tokens_per_second > 0
    again = generate(lake, make_config(tiny_model, seed=5))
    assert again.status == "already finished"


def test_an_explanation_that_closes(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[formats.short]\nbase = "stratos"\nteacher.close = " "\n'
    (tmp_path / "rlt-data.toml").write_text(text + f'[models.mine]\nmodel = "{tiny_model}"\n')
    monkeypatch.chdir(tmp_path)
    lake = make_lake(tmp_path / "lake")
    generate(lake, make_config(tiny_model, teacher="mine", format="short", max_tokens=200))
    rows = read_traces(lake)
    assert {row["teacher"] for row in rows} == {"mine"}
    closed = [row for row in rows if row["finish_reason"] == "stop"]
    assert closed
    for row in closed:
        assert row["completion"] == row["think"] + " "
        assert " " not in row["think"]
        assert row["state"] == ("closed" if row["think"].strip() else "empty")
        assert not row["truncated"]


def test_an_interrupted_run_resumes_to_the_same_rows(tmp_path: Path, tiny_model: Path) -> None:
    whole, parts = make_lake(tmp_path / "whole"), make_lake(tmp_path / "parts")
    finished = generate(whole, make_config(tiny_model))
    for rows in (3, 2):
        with pytest.raises(KeyboardInterrupt):
            generate(parts, make_config(tiny_model, max_batch_rows=2), reporter=StoppingReporter(rows))
    assert 5 <= len(read_traces(parts)) < len(read_traces(whole))
    resumed = generate(parts, make_config(tiny_model, max_batch_rows=3))
    same = strip_run(read_traces(whole))
    found = strip_run(read_traces(parts))
    for left, right in zip(same, found, strict=True):
        expected, logprobs = left.pop("completion_logprobs"), right.pop("completion_logprobs")
        assert left == right
        assert logprobs == pytest.approx(expected, abs=1e-5)
    for name in ("rows_in", "rows_out", "tokens", "truncated", "rejected", "status"):
        assert getattr(resumed, name) == getattr(finished, name), name
    assert len(parts.runs()) == 1


def test_a_generation_grows_by_what_is_missing(tmp_path: Path, tiny_model: Path) -> None:
    lake = make_lake(tmp_path)
    first = generate(lake, make_config(tiny_model, samples=1, limit=2))
    assert first.rows_out == 2
    second = generate(lake, make_config(tiny_model, samples=2))
    assert second.rows_out == 2 * len(QUESTIONS) - 2
    assert any("2 traces of this generation were already in the lake" in note for note in second.notes)
    rows = read_traces(lake)
    assert len({(row["question_id"], row["sample_index"]) for row in rows}) == len(rows) == 8
    assert len({row["generation_id"] for row in rows}) == 1
    first_two = lake.table("questions").scan().sort("source_row").head(2).collect()["question_id"]
    assert {row["question_id"] for row in rows if row["run_id"] == first.run_id} == set(first_two)


def test_what_enters_a_generation_and_what_does_not(tmp_path: Path, tiny_model: Path) -> None:
    lake = make_lake(tmp_path, QUESTIONS[:1])
    generate(lake, make_config(tiny_model, samples=1))
    same = [{"max_batch_rows": 1}, {"max_batch_tokens": 500}, {"dtype": "float32"}]
    other = [
        {"seed": 1},
        {"temperature": 0.9},
        {"top_p": 0.5},
        {"top_k": 3},
        {"max_tokens": 25},
        {"format": "r1"},
    ]
    for options in same:
        assert generate(lake, make_config(tiny_model, samples=1, **options)).status == "already finished"
    for options in other:
        generate(lake, make_config(tiny_model, samples=1, **options))
    assert len({row["generation_id"] for row in read_traces(lake)}) == 1 + len(other)
    forced = generate(lake, make_config(tiny_model, samples=1), force=True)
    assert forced.status == "finished"
    assert forced.rows_out == 1
    assert len(read_traces(lake)) == 2 + len(other)


def test_greedy_log_probabilities_are_called_raw(tmp_path: Path, tiny_model: Path) -> None:
    lake = make_lake(tmp_path, QUESTIONS[:1])
    generate(lake, make_config(tiny_model, temperature=0.0, samples=2))
    rows = read_traces(lake)
    assert {row["logprob_mode"] for row in rows} == {"raw"}
    assert rows[0]["completion"] == rows[1]["completion"]


def test_where_selects_questions(tmp_path: Path, tiny_model: Path) -> None:
    lake = make_lake(tmp_path)
    generate(lake, make_config(tiny_model, where="question like 'What%'"))
    assert len(read_traces(lake)) == 2 * 3
    with pytest.raises(UsageError, match="not valid SQL"):
        generate(lake, make_config(tiny_model, where="quesion = 'x'"))
    with pytest.raises(UsageError, match="contains no question"):
        generate(lake, make_config(tiny_model, where="question = 'x'"))


def test_questions_that_do_not_fit_are_rejected(tmp_path: Path, tiny_model: Path) -> None:
    lake = make_lake(tmp_path, [*QUESTIONS[:2], ("word " * 1200, "7")])
    summary = generate(lake, make_config(tiny_model, samples=2))
    assert (summary.rows_in, summary.rows_out, summary.rejected) == (6, 4, 2)
    rejects = read_rejects(lake)
    assert {row["reason"] for row in rejects} == {"over_context"}
    assert {row["key"] for row in rejects}.isdisjoint(row["trace_id"] for row in read_traces(lake))
    assert "context of 1024" in rejects[0]["detail"]
    with pytest.raises(UsageError, match="no question fits"):
        generate(lake, make_config(tiny_model, where="length(question) > 1000"))


def test_the_default_length_fits_a_short_context(tmp_path: Path) -> None:
    teacher = save_tiny_model(tmp_path / "short", max_position_embeddings=900)
    lake = make_lake(tmp_path, QUESTIONS[:2])
    config = GenerateConfig(teacher=str(teacher), engine="transformers", device="cpu", allow_truncated=True)
    assert config.max_tokens == 4096
    summary = generate(lake, config)
    rows = read_traces(lake)
    assert (summary.rows_out, summary.rejected, len(rows)) == (2, 0, 2)
    assert {row["max_tokens"] for row in rows} == {4096}
    ended = [row for row in rows if row["truncated"]]
    assert all(row["prompt_tokens"] + row["completion_tokens"] == 900 for row in ended)
    expected = f"{len(ended)} explanations were truncated by the context of {teacher}, before max_tokens 4096"
    assert ended
    assert expected in summary.notes


def test_an_empty_lake_and_an_unknown_teacher_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="no questions") as caught:
        generate(Lake(tmp_path / "empty"), make_config(tiny_model))
    assert caught.value.remedy == "rlt-data ingest FILE"
    with pytest.raises(ModelError, match="no model is named"):
        generate(make_lake(tmp_path / "lake"), make_config(tiny_model, teacher="qwen7"))


def test_too_many_truncated_explanations_stop_the_stage_with_advice_and_keep_the_rows(
    tmp_path: Path, tiny_model: Path
) -> None:
    lake = make_lake(tmp_path)
    strict = {"allow_truncated": False, "max_tokens": 4, "samples": 12}
    with pytest.raises(StageStoppedError, match="truncated at max_tokens 4") as caught:
        generate(lake, make_config(tiny_model, max_batch_rows=8, **strict))
    assert caught.value.remedy is not None
    assert "raise max_tokens" in caught.value.remedy
    kept = len(read_traces(lake))
    assert 32 <= kept < 48
    with pytest.raises(StageStoppedError):
        generate(lake, make_config(tiny_model, **strict))
    summary = generate(lake, make_config(tiny_model, **{**strict, "allow_truncated": True}))
    assert (summary.status, summary.rows_out) == ("finished", 48)
    assert len(lake.runs()) == 1


@pytest.mark.parametrize(
    ("completions", "truncated", "on_the_way", "at_end"),
    [
        (1, 1, False, False),
        (4, 2, False, False),
        (4, 4, False, True),
        (31, 31, False, True),
        (32, 11, False, True),
        (32, 9, False, False),
        (32, 20, True, True),
        (1000, 305, False, True),
        (1000, 350, True, True),
    ],
)
def test_when_the_truncated_share_stops_the_stage(
    completions: int, truncated: int, on_the_way: bool, at_end: bool
) -> None:
    limit = TruncationLimit(GenerateConfig(teacher="x"))
    for number in range(completions):
        limit.count(truncated=number < truncated)
    for check, stops in ((limit.check_during_run, on_the_way), (limit.check_at_end, at_end)):
        if stops:
            with pytest.raises(StageStoppedError):
                check("run")
        else:
            check("run")


def test_no_completion_at_all_is_no_reason_to_stop() -> None:
    TruncationLimit(GenerateConfig(teacher="x", max_truncated_share=0.0)).check_at_end("run")


def test_options_that_change_the_teacher_make_another_generation() -> None:
    model, format = ModelIdentity("teacher", "x", "x", "1"), load_format("stratos")
    teacher = EngineModel(model, model)
    ids = []
    for options in ({}, {"tensor_parallel_size": 2}, {"quantization": "fp8"}, {"hf_overrides": {"a": 1}}):
        config = GenerateConfig(teacher="x", engine="vllm", engine_options=options)
        ids.append(describe_generation(config, teacher, format, None, 0).id)
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
