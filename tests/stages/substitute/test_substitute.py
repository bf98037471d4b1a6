from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from small_lake import append_made, make_lake, make_question, make_score, make_trace, read_run

from rlt_data.errors import LakeError, ModelError, UsageError
from rlt_data.formats import build_student_messages, load_built_in, render_student_text
from rlt_data.lake import Lake
from rlt_data.models import load_tokenizer, resolve_model
from rlt_data.settings import ModelSettings, Settings, use_settings
from rlt_data.stages.rank import RankConfig, rank
from rlt_data.stages.substitute import SubstituteConfig, examples, substitute

STRATOS = load_built_in("stratos")


def write_short_format(folder: Path) -> str:
    """The stratos tags with short system prompts: the tiny tokenizer spells the long ones byte by byte."""
    path = folder / "short.toml"
    path.write_text(
        'base = "stratos"\n[teacher]\nsystem = "T"\n[student]\nsystem = "Think."\n', encoding="utf-8"
    )
    return str(path)


@pytest.fixture
def ranked(tmp_path: Path) -> Lake:
    lake, _ = make_lake(tmp_path, questions=3, samples=3, exact=0.1)
    rank(lake, RankConfig())
    return lake


def make_config(tmp_path: Path, model: Path, **settings: Any) -> SubstituteConfig:
    return SubstituteConfig(student=str(model), format=write_short_format(tmp_path), **settings)


def test_examples_hold_the_best_explanation_and_the_true_solution(
    ranked: Lake, tmp_path: Path, tiny_model: Path
) -> None:
    summary = substitute(ranked, SubstituteConfig(student=str(tiny_model), over_context="keep"))
    rows = read_run(ranked, "distillation", summary.run_id).sort("question_id").to_dicts()
    assert [row["trace_id"] for row in rows] == ["q0t0", "q1t0", "q2t0"]
    tokenizer = load_tokenizer(resolve_model(str(tiny_model), role="student"))
    for number, row in enumerate(rows):
        question, trace = make_question(number), make_trace(number, 0)
        expected = render_student_text(
            STRATOS, tokenizer, question["question"], trace["think"], question["solution"]
        )
        assert row["text"] == expected.text
        assert row["messages"] == build_student_messages(
            STRATOS, question["question"], trace["think"], question["solution"]
        )
        ids = tokenizer(row["text"], add_special_tokens=False)["input_ids"]
        assert row["total_tokens"] == len(ids)
        assert ids[-1] == tokenizer.eos_token_id, "a trainer's labels must hold the end token"
        prompt = tokenizer(expected.text[slice(*expected.spans["prompt"])], add_special_tokens=False)
        assert row["prompt_tokens"] == len(prompt["input_ids"])
        assert (row["rank"], row["format"], row["stands_in_for"]) == (1, "stratos", None)
        assert row["over_context"] == (len(ids) > 1024)
    assert (summary.rows_in, summary.rows_out, summary.rejected) == (3, 3, 0)
    assert summary.tokens == sum(row["total_tokens"] for row in rows)


def test_texts_over_the_context_are_dropped_by_name_or_kept_and_marked(
    tmp_path: Path, tiny_model: Path
) -> None:
    lake = Lake(tmp_path / "lake")
    traces = [make_trace(0, 0, think="word " * 300), make_trace(0, 1), make_trace(1, 0)]
    append_made(lake, "ingest", "questions", [make_question(0), make_question(1)])
    append_made(lake, "generate", "traces", traces)
    append_made(lake, "score", "scores", [make_score(t, -1.0 - t["sample_index"], exact=0.0) for t in traces])
    rank(lake, RankConfig())
    config = make_config(tmp_path, tiny_model, student_context=400)

    dropped = substitute(lake, config)
    assert read_run(lake, "distillation", dropped.run_id)["trace_id"].to_list() == ["q1t0"]
    reject = read_run(lake, "rejects", dropped.run_id).to_dicts()[0]
    assert (reject["key"], reject["reason"]) == ("q0t0", "over_context")
    assert "the context is 400" in reject["detail"]

    kept = substitute(lake, config.model_copy(update={"over_context": "keep"}))
    rows = read_run(lake, "distillation", kept.run_id).sort("trace_id")
    assert rows.select("trace_id", "over_context").rows() == [("q0t0", True), ("q1t0", False)]
    assert kept.extra["over_context"] == 1

    replaced = substitute(lake, config.model_copy(update={"over_context": "next-best"}))
    rows = read_run(lake, "distillation", replaced.run_id).sort("trace_id")
    assert rows.select("trace_id", "stands_in_for").rows() == [("q0t1", "q0t0"), ("q1t0", None)]
    assert rows["over_context"].any() is False
    assert "replaced by q0t1" in read_run(lake, "rejects", replaced.run_id)["detail"].item()
    assert replaced.extra["replaced"] == 1


def test_next_best_uses_no_trace_twice_and_reports_when_none_fits(tmp_path: Path, tiny_model: Path) -> None:
    lake = Lake(tmp_path / "lake")
    long = "word " * 300
    traces = [make_trace(0, s, think=long if s in (0, 1, 2) else None) for s in range(4)]
    append_made(lake, "ingest", "questions", [make_question(0)])
    append_made(lake, "generate", "traces", traces)
    append_made(lake, "score", "scores", [make_score(t, -1.0 - t["sample_index"], exact=0.0) for t in traces])
    rank(lake, RankConfig(policy="best-of-n(2)"))
    summary = substitute(
        lake, make_config(tmp_path, tiny_model, student_context=400, over_context="next-best")
    )
    rows = read_run(lake, "distillation", summary.run_id)
    assert rows.select("trace_id", "stands_in_for").rows() == [("q0t3", "q0t0")]
    details = read_run(lake, "rejects", summary.run_id).sort("key").select("key", "detail").rows()
    assert [key for key, _ in details] == ["q0t0", "q0t1"]
    assert "no other trace of the question fits" in details[1][1]


def test_the_context_is_the_smaller_of_model_and_tokenizer(
    ranked: Lake, tmp_path: Path, tiny_model: Path
) -> None:
    assert substitute(ranked, make_config(tmp_path, tiny_model)).extra["context"] == 1024
    assert substitute(ranked, make_config(tmp_path, tiny_model, student_context=77)).extra["context"] == 77


def test_traces_that_cannot_be_used_are_rejected_by_name(tmp_path: Path, tiny_model: Path) -> None:
    lake = Lake(tmp_path / "lake")
    traces = [
        make_trace(0, 0, think="so <|im_end|> then"),
        make_trace(1, 0, think=None) | {"think": None, "state": "missing_open"},
        make_trace(2, 0),
        make_trace(3, 0),
    ]
    append_made(lake, "ingest", "questions", [make_question(q) for q in range(3)])
    append_made(lake, "generate", "traces", traces)
    append_made(lake, "score", "scores", [make_score(t, -1.0, exact=0.0) for t in traces])
    rank(lake, RankConfig())
    summary = substitute(lake, make_config(tmp_path, tiny_model))
    assert read_run(lake, "distillation", summary.run_id)["trace_id"].to_list() == ["q2t0"]
    rejects = read_run(lake, "rejects", summary.run_id).sort("key").select("key", "reason").rows()
    assert rejects == [("q0t0", "control_token"), ("q1t0", "no_explanation"), ("q3t0", "unknown_question")]
    assert (summary.rows_in, summary.rejected) == (4, 3)
    kept = substitute(lake, make_config(tmp_path, tiny_model, control_tokens="keep"))
    assert kept.rows_out == 2


def test_the_newest_finished_ranking_is_used_unless_one_is_named(
    ranked: Lake, tmp_path: Path, tiny_model: Path
) -> None:
    first = next(run for run in ranked.runs() if run.stage == "rank")
    second = rank(ranked, RankConfig(policy="best-of-n(2)"))
    newest = substitute(ranked, make_config(tmp_path, tiny_model))
    assert (newest.rows_out, newest.extra["ranking"]) == (6, second.run_id)
    named = substitute(ranked, make_config(tmp_path, tiny_model, ranking=first.run_id[:10]))
    assert (named.rows_out, named.extra["ranking"]) == (3, first.run_id)
    with pytest.raises(LakeError, match="not a finished run of rank"):
        substitute(ranked, make_config(tmp_path, tiny_model, ranking=newest.run_id))


def test_a_missing_ranking_is_an_error(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(LakeError, match="no finished run of rank"):
        substitute(Lake(tmp_path / "lake"), make_config(tmp_path, tiny_model))


def test_a_ranking_by_several_students_requires_a_choice(tmp_path: Path, tiny_model: Path) -> None:
    lake, traces = make_lake(tmp_path, questions=1, samples=2, exact=0.0)
    other = [make_score(t, -4.0 + 2 * t["sample_index"], student="other", exact=0.0) for t in traces]
    append_made(lake, "score", "scores", other, label="other")
    rank(lake, RankConfig())
    with pytest.raises(UsageError, match="by several students") as caught:
        substitute(lake, make_config(tmp_path, tiny_model))
    assert "other, student" in str(caught.value.where)
    for name, trace in (("student", "q0t0"), ("other", "q0t1")):
        summary = substitute(lake, make_config(tmp_path, tiny_model, ranked_by=name))
        assert read_run(lake, "distillation", summary.run_id)["trace_id"].to_list() == [trace]


def test_the_student_that_ranked_is_used_where_none_is_named(
    ranked: Lake, tmp_path: Path, tiny_model: Path
) -> None:
    named = substitute(ranked, make_config(tmp_path, tiny_model))
    with use_settings(Settings(models={"student": ModelSettings(model=str(tiny_model))})):
        taken = substitute(ranked, SubstituteConfig(format=write_short_format(tmp_path)))
    assert (taken.run_id, taken.status) == (named.run_id, "already finished")


def test_a_ranking_by_no_model_requires_a_student(ranked: Lake, tmp_path: Path) -> None:
    rank(ranked, RankConfig(policy="random(1)", where_scores="false"))
    with pytest.raises(UsageError, match="does not name a student model") as caught:
        substitute(ranked, SubstituteConfig())
    assert "--student" in str(caught.value.remedy)


def test_rejects_are_counted_by_reason(ranked: Lake, tmp_path: Path, tiny_model: Path) -> None:
    summary = substitute(ranked, make_config(tmp_path, tiny_model, student_context=5))
    assert (summary.rejected, summary.extra["rejected_over_context"]) == (3, 3)
    assert ranked.run(summary.run_id).counts["extra"]["rejected_over_context"] == 3


def test_it_is_done_once_for_the_same_ranking_and_tokenizer(
    ranked: Lake, tmp_path: Path, tiny_model: Path
) -> None:
    first = substitute(ranked, make_config(tmp_path, tiny_model))
    # New traces do not touch an older ranking's examples.
    append_made(ranked, "generate", "traces", [make_trace(0, 9)], label="later")
    again = substitute(ranked, make_config(tmp_path, tiny_model, batch_size=1))
    assert (again.run_id, again.status) == (first.run_id, "already finished")
    other = substitute(ranked, SubstituteConfig(student=str(tiny_model), format="r1"))
    assert other.run_id != first.run_id


def test_a_template_without_an_end_token_is_refused(ranked: Lake, tmp_path: Path) -> None:
    from tiny_models import build_tokenizer, save_tiny_model

    folder = save_tiny_model(tmp_path / "endless")
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match="which is not an end token"):
        substitute(ranked, make_config(tmp_path, folder))


def test_rows_do_not_depend_on_the_batch(ranked: Lake, tmp_path: Path, tiny_model: Path) -> None:
    keys = ["question_id", "trace_id", "text", "total_tokens"]
    frames = []
    for size in (1, 2, 100):
        summary = substitute(ranked, make_config(tmp_path, tiny_model, batch_size=size), force=True)
        frames.append(read_run(ranked, "distillation", summary.run_id).select(keys).sort(keys))
    assert frames[0].equals(frames[1])
    assert frames[0].equals(frames[2])
    assert isinstance(frames[0], pl.DataFrame)


PROGRAM = """
    import os, signal, sys, time
    from contextlib import contextmanager
    from rlt_data.lake import Lake
    from rlt_data.progress import Reporter
    from rlt_data.stages.substitute import SubstituteConfig, substitute

    uri, config = sys.argv[1:]

    class Deadly(Reporter):
        # Rows are committed every two seconds: wait for that once, and die three examples later.
        @contextmanager
        def track(self, description, total, unit="rows"):
            with super().track(description, total, unit) as task:
                advance = task.advance
                def count(n=1, tokens=0):
                    advance(n, tokens)
                    if task.done == 2:
                        time.sleep(2.2)
                    if task.done == 5:
                        os.kill(os.getpid(), signal.SIGKILL)
                task.advance = count
                yield task

    substitute(Lake(uri), SubstituteConfig.model_validate_json(config), reporter=Deadly())
"""


def test_a_killed_substitution_resumes_to_the_same_tables(tmp_path: Path, tiny_model: Path) -> None:
    config = make_config(tmp_path, tiny_model, student_context=400, over_context="next-best")

    def build(name: str) -> Lake:
        lake = Lake(tmp_path / name)
        traces = [
            make_trace(q, s, think="word " * 300 if s == 0 and q % 2 else None)
            for q in range(8)
            for s in range(2)
        ]
        append_made(lake, "ingest", "questions", [make_question(q) for q in range(8)])
        append_made(lake, "generate", "traces", traces)
        scores = [make_score(t, -1.0 - t["sample_index"], exact=0.0) for t in traces]
        append_made(lake, "score", "scores", scores)
        rank(lake, RankConfig())
        return lake

    whole, cut = build("whole"), build("cut")
    expected = substitute(whole, config)
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), cut.uri, config.model_dump_json()]
    killed = subprocess.run(command, timeout=120, check=False)
    assert killed.returncode == -signal.SIGKILL
    committed = cut.table("distillation").count()
    assert 0 < committed < expected.rows_out, "the kill must fall in the middle"

    resumed = substitute(cut, config)
    assert resumed.run_id == expected.run_id
    for table in ("distillation", "rejects"):
        key = cut.table(table).schema.key
        frames = [lake.table(table).scan().collect().sort(key) for lake in (whole, cut)]
        assert frames[0].equals(frames[1])
    names = ("rows_in", "rows_out", "rejected", "tokens")
    assert [getattr(resumed, n) for n in names] == [getattr(expected, n) for n in names]
    assert resumed.extra == expected.extra


def test_where_and_limit_choose_among_the_selected(ranked: Lake, tmp_path: Path, tiny_model: Path) -> None:
    config = make_config(tmp_path, tiny_model, limit=2)
    summary = substitute(ranked, config)
    rows = read_run(ranked, "distillation", summary.run_id)
    assert (summary.rows_in, sorted(rows.get_column("question_id"))) == (2, ["q0", "q1"])
    others = substitute(ranked, make_config(tmp_path, tiny_model, where="question_id <> 'q0'"))
    rows = read_run(ranked, "distillation", others.run_id)
    assert sorted(rows.get_column("question_id")) == ["q1", "q2"]


def test_the_completion_begins_where_the_assistant_does(
    ranked: Lake, tmp_path: Path, tiny_model: Path
) -> None:
    summary = substitute(ranked, make_config(tmp_path, tiny_model))
    for row in read_run(ranked, "distillation", summary.run_id).to_dicts():
        assert row["text"][row["completion_start"] :].startswith(row["messages"][-1]["content"])


def test_a_replacement_is_used_once_over_all_chunks(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two selected traces of one question are too long, in different chunks, and one shorter one is left."""
    monkeypatch.setattr(examples, "READ_ROWS", 1)
    lake = Lake(tmp_path / "lake")
    append_made(lake, "ingest", "questions", [make_question(0)])
    traces = [make_trace(0, sample, think="long " * 400 if sample < 2 else "short") for sample in range(3)]
    append_made(lake, "generate", "traces", traces)
    scores = [make_score(trace, -float(number), exact=0.0) for number, trace in enumerate(traces)]
    append_made(lake, "score", "scores", scores)
    rank(lake, RankConfig(policy="best-of-n(2)"))
    config = make_config(tmp_path, tiny_model, student_context=600, over_context="next-best")
    summary = substitute(lake, config)
    rows = read_run(lake, "distillation", summary.run_id)
    assert rows.select("trace_id", "stands_in_for").rows() == [("q0t2", "q0t0")]
    assert summary.extra["replaced"] == summary.rows_out == 1
    assert summary.rejected == 2
