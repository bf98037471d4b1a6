"""The evaluate stage over a real lake, tiny models and a real server: rows, grades, resume, failures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from engines.openai.fault_server import MODEL, FaultServer, Plan
from tiny_models import CHAT_TEMPLATE, save_tiny_model

from rlt_data.errors import UsageError
from rlt_data.formats import load_format, render_student_text
from rlt_data.lake import Lake
from rlt_data.models import load_tokenizer, resolve_model
from rlt_data.progress import Reporter, Task
from rlt_data.settings import ModelSettings, Settings, use_settings
from rlt_data.stages.evaluate import EvaluateConfig, evaluate
from rlt_data.stages.ingest import IngestConfig, ingest
from rlt_data.stages.runtime.contract import StageSummary

pytest.importorskip("math_verify")

QUESTIONS = [
    {"question": "What is 3 + 4?", "answer": "7"},
    {"question": "What is 7 times 2, and why?", "answer": "14", "level": 2},
    {"question": "Ein Ei kostet 2€ — 12 Eier?", "answer": "24"},
]
GPQA = [
    {
        "Question": f"Which particle is number {number}?",
        "Correct Answer": "gluon",
        **{f"Incorrect Answer {index}": f"particle {index}" for index in (1, 2, 3)},
    }
    for number in range(8)
]
SERVED: dict[str, Any] = {
    "model": MODEL,
    "format": "r1",
    "temperature": 0.7,
    "engine": "openai",
    "max_tokens": 50,
}
QUICK = {
    "api": "chat",
    "concurrency": 4,
    "timeout": 2.5,
    "attempts": 2,
    "backoff": 0.02,
    "ready_timeout": 1.0,
}


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def make_config(model: Path, folder: Path, **options: Any) -> EvaluateConfig:
    defaults: dict[str, Any] = {
        "model": str(model),
        "task": "own",
        "format": "r1",
        "data": write_rows(folder / "questions.jsonl", QUESTIONS),
        "samples": 2,
        "temperature": 0.8,
        "max_tokens": 16,
        "engine": "transformers",
        "device": "cpu",
        "processes": 1,
    }
    return EvaluateConfig(**{**defaults, **options})


def make_served(server: FaultServer, data: str, **options: Any) -> EvaluateConfig:
    extra = {**QUICK, **options.pop("engine_options", {})}
    defaults = {**SERVED, "task": "own", "data": data, "base_url": server.base_url, "processes": 1}
    return EvaluateConfig(**{**defaults, "engine_options": extra, **options})


def read(lake: Lake, table: str) -> list[dict[str, Any]]:
    scan = lake.table(table).scan()
    return scan.sort(lake.table(table).schema.key).collect().to_dicts()


def strip_run(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "run_id"} for row in rows]


def find_result(summary: StageSummary, extraction: str = "stated") -> dict[str, Any]:
    [found] = [row for row in summary.extra["results"] if row["extraction"] == extraction]
    return found


class StoppingReporter(Reporter):
    """A user who presses Ctrl-C after so many completions."""

    def __init__(self, rows: int) -> None:
        super().__init__(quiet=True)
        self._left = rows

    @contextmanager
    def track(self, description: str, total: int | None, unit: str = "rows") -> Iterator[Task]:
        reporter = self

        class Stopping(Task):
            def advance(self, rows: int = 1, *, tokens: int = 0) -> None:
                reporter._left -= rows
                if reporter._left < 0 and unit == "completions":
                    raise KeyboardInterrupt

        with super().track(description, total, unit):
            yield Stopping()


def test_every_completion_and_every_verdict_is_a_row(tmp_path: Path, tiny_model: Path) -> None:
    lake = Lake(tmp_path / "lake")
    summary = evaluate(lake, make_config(tiny_model, tmp_path))
    rows = read(lake, "evaluations")
    assert len(rows) == 6
    assert {row["question"] for row in rows} == {row["question"] for row in QUESTIONS}
    assert {row["sample_index"] for row in rows} == {0, 1}
    second = next(row for row in rows if row["answer"] == "14")
    assert json.loads(second["metadata"]) == {"level": 2}
    assert (second["task"], second["format"], second["temperature"]) == ("own", "r1", 0.8)
    assert second["prompt_hash"]
    assert second["model_revision"]
    assert second["engine"].startswith("transformers")
    grades = read(lake, "grades")
    # Two graders, two extractions.
    assert len(grades) == 4 * 6
    assert {(row["grader"], row["primary"]) for row in grades} == {("math", True), ("text", False)}
    # A tiny model loops until its limit.
    assert summary.truncated == 6
    result = find_result(summary)
    assert (result["questions"], result["completions"], result["samples"]) == (3, 6, [2, 2])
    assert (result["truncated"], result["low_bound"], result["high_bound"]) == (6, 0.0, 1.0)
    assert sum(result["verdicts"].values()) == 6
    assert any("were truncated" in note for note in summary.notes)


def test_an_interrupted_evaluation_resumes_to_the_same_rows(tmp_path: Path, tiny_model: Path) -> None:
    whole, parts = Lake(tmp_path / "whole"), Lake(tmp_path / "parts")
    finished = evaluate(whole, make_config(tiny_model, tmp_path, max_batch_rows=2))
    for rows in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            evaluate(
                parts, make_config(tiny_model, tmp_path, max_batch_rows=2), reporter=StoppingReporter(rows)
            )
    resumed = evaluate(parts, make_config(tiny_model, tmp_path, max_batch_rows=3))
    for table in ("evaluations", "grades"):
        assert strip_run(read(whole, table)) == strip_run(read(parts, table))
    for name in ("rows_in", "rows_out", "truncated", "tokens", "tables"):
        assert getattr(resumed, name) == getattr(finished, name), name
    assert resumed.extra["results"] == finished.extra["results"]


def test_an_evaluation_grows_by_what_is_missing(tmp_path: Path, tiny_model: Path) -> None:
    lake = Lake(tmp_path / "lake")
    evaluate(lake, make_config(tiny_model, tmp_path))
    before = {row["evaluation_id"] for row in read(lake, "evaluations")}
    summary = evaluate(lake, make_config(tiny_model, tmp_path, samples=4))
    assert len(read(lake, "evaluations")) == 12
    assert summary.tables["evaluations"] == 6
    assert before <= {row["evaluation_id"] for row in read(lake, "evaluations")}
    assert find_result(summary)["completions"] == 12
    again = evaluate(lake, make_config(tiny_model, tmp_path, samples=4))
    assert again.status == "already finished"


def test_questions_come_from_the_lake(tmp_path: Path, tiny_model: Path) -> None:
    lake = Lake(tmp_path / "lake")
    rows = [
        {
            "question_id": f"q{number}",
            "question": f"What is {number} + 1?",
            "solution": rf"It is \boxed{{{number + 1}}}.",
            "solution_rendered": False,
            "run_id": "test",
        }
        for number in range(4)
    ]
    lake.table("questions").append(pl.DataFrame(rows), run_id="test")
    config = make_config(tiny_model, tmp_path, data=None, where="question_id <> 'q0'", limit=2, samples=1)
    evaluate(lake, config)
    assert [(row["question_id"], row["answer"]) for row in read(lake, "evaluations")] != []
    assert {(row["question_id"], row["answer"]) for row in read(lake, "evaluations")} == {
        ("q1", "2"),
        ("q2", "3"),
    }
    # Benchmarks never enter the table of questions.
    assert lake.table("questions").count() == 4


def test_the_engine_is_asked_with_exactly_the_prefix_of_training(tmp_path: Path, tiny_model: Path) -> None:
    lake = Lake(tmp_path / "lake")
    evaluate(lake, make_config(tiny_model, tmp_path))
    row = next(row for row in read(lake, "evaluations") if row["answer"] == "7")
    tokenizer = load_tokenizer(resolve_model(str(tiny_model), role="student"))
    message = rf"Return your final response within \boxed{{}}. {row['question']}"
    trained = render_student_text(load_format("r1"), tokenizer, message, "think", "7")
    prefix = trained.text[: trained.spans["prompt"][1]]
    assert row["prompt_tokens"] == len(tokenizer(prefix, add_special_tokens=False)["input_ids"])


def test_a_template_that_opens_the_thinking_is_used_as_it_is_served(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "opens", seed=3)
    template = CHAT_TEMPLATE + (
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"
    )
    (model / "chat_template.jinja").write_text(template, encoding="utf-8")
    lake = Lake(tmp_path / "lake")
    evaluate(lake, make_config(model, tmp_path, samples=1))
    tokenizer = load_tokenizer(resolve_model(str(model), role="student"))
    row = next(row for row in read(lake, "evaluations") if row["answer"] == "7")
    message = rf"Return your final response within \boxed{{}}. {row['question']}"
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True
    )
    assert prompt.endswith("<think>\n")
    assert row["prompt_tokens"] == len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    # What the model writes is thinking that never closes.
    assert (row["think"], row["response"], row["state"]) == (row["completion"], None, "missing_close")


def test_a_prompt_beyond_the_context_is_a_row_that_failed(tmp_path: Path, tiny_model: Path) -> None:
    data = write_rows(tmp_path / "long.jsonl", [*QUESTIONS, {"question": "egg " * 3000 + "?", "answer": "1"}])
    lake = Lake(tmp_path / "lake")
    summary = evaluate(lake, make_config(tiny_model, tmp_path, data=data, samples=1))
    [failed] = [row for row in read(lake, "evaluations") if row["failure"]]
    assert failed["failure"].startswith("over_context:")
    assert find_result(summary)["verdicts"]["failed"] == 1
    assert find_result(summary)["questions"] == 4
    assert read(lake, "rejects") == []
    assert any("could not be asked 1 of 4 samples (over_context)" in note for note in summary.notes)


def test_a_true_answer_that_its_grader_cannot_verify_is_named_and_stays(
    tmp_path: Path, tiny_model: Path
) -> None:
    data = write_rows(tmp_path / "g.jsonl", [*QUESTIONS, {"question": "Braces?", "answer": "}{"}])
    summary = evaluate(Lake(tmp_path / "lake"), make_config(tiny_model, tmp_path, data=data, samples=1))
    assert summary.extra["unverified_golds"] == {"own": 1}
    [note] = [note for note in summary.notes if "true answers" in note]
    assert "1 of 4 true answers" in note
    assert "g.jsonl row 3: '}{'" in note
    assert find_result(summary)["questions"] == 4


def test_equal_samples_and_contradicting_sources_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    lake = Lake(tmp_path / "lake")
    with pytest.raises(UsageError, match="would be the same"):
        evaluate(lake, make_config(tiny_model, tmp_path, temperature=0))
    with pytest.raises(ValueError, match="questions come from one source"):
        make_config(tiny_model, tmp_path, where="true")
    with pytest.raises(UsageError, match="did you mean 'own'"):
        evaluate(lake, make_config(tiny_model, tmp_path, task="owns"))
    assert lake.table("runs").count() == 0


def answer_right(prompt: str) -> str:
    known = {row["question"]: row["answer"] for row in QUESTIONS}
    found = next((answer for question, answer in known.items() if question in prompt), "?")
    return f"<think>\nLet me see.\n</think>\n\nThe answer is \\boxed{{{found}}}."


def test_a_model_behind_a_server_is_graded(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "q.jsonl", QUESTIONS)
    with FaultServer(lambda prompt: Plan(), answer=answer_right) as server:
        summary = evaluate(Lake(tmp_path / "lake"), make_served(server, data, samples=2))
        sent = server.bodies[0]["messages"]
    result = find_result(summary)
    assert (result["score"], result["verdicts"]) == (1.0, {"correct": 6})
    # The format r1 has no system prompt; the task's message is the user's.
    assert [message["role"] for message in sent] == ["user"]
    assert sent[0]["content"].startswith(r"Return your final response within \boxed{}. ")


def test_multiple_choice_shows_a_model_that_always_says_a(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "g.jsonl", GPQA)
    lake = Lake(tmp_path / "lake")
    with FaultServer(lambda prompt: Plan(), answer=lambda prompt: r"\boxed{A}") as server:
        summary = evaluate(lake, make_served(server, data, task="gpqa_diamond", samples=3))
        sent = {body["messages"][-1]["content"] for body in server.bodies}
    rows = read(lake, "evaluations")
    assert len(rows) == 24
    for row in rows:
        assert row["options"]["ABCD".index(row["answer"])] == "gluon"
        # The row has the options as they were shown.
        listed = ", ".join(f"{a}) {b}" for a, b in zip("ABCD", row["options"], strict=True))
        assert any(message.endswith(f"{row['question']}\n{listed}") for message in sent)
    right = sum(row["answer"] == "A" for row in rows)
    result = find_result(summary)
    assert result["score"] == pytest.approx(right / 24)
    letters = {share["letter"]: share for share in result["letters"]}
    assert (letters["A"]["chosen"], letters["B"]["chosen"]) == (1.0, 0.0)
    assert letters["A"]["right"] == pytest.approx(right / 24)


def test_several_tasks_and_models_in_one_call(tmp_path: Path, tiny_model: Path) -> None:
    data = write_rows(tmp_path / "q.jsonl", QUESTIONS)
    config = make_config(tiny_model, tmp_path, data=data, samples=1, task=("own", "gsm8k"))
    config = config.model_copy(update={"model": (str(tiny_model), "tiny")})
    with use_settings(Settings(models={"tiny": ModelSettings(model=str(tiny_model))})):
        summary = evaluate(Lake(tmp_path / "lake"), config)
    found = {(row["task"], row["model"]) for row in summary.extra["results"]}
    # The same weights under two names are asked once.
    assert {task for task, _ in found} == {"own", "gsm8k"}
    assert summary.tables["evaluations"] == 6
    assert f"3 completions of own by tiny are in the lake already, as those of {tiny_model}" in summary.notes


def test_a_server_that_dies_ends_as_rows_and_the_next_call_asks_the_rest(tmp_path: Path) -> None:
    rows = [{"question": f"What is {number} + 0?", "answer": str(number)} for number in range(12)]
    data = write_rows(tmp_path / "q.jsonl", rows)
    lake = Lake(tmp_path / "lake")
    server = FaultServer(lambda prompt: Plan())

    def die(prompt: str) -> str:
        server.broken = sum(server.served.values()) > 4
        return r"\boxed{3}"

    server.answer = die
    with server:
        summary = evaluate(lake, make_served(server, data, engine_options={"concurrency": 1}))
    answered, rejected = read(lake, "evaluations"), read(lake, "rejects")
    assert summary.status == "finished"
    assert 0 < len(answered) < 12
    assert len(answered) + len(rejected) == 12
    assert summary.extra["unanswered"] == len(rejected)
    assert any("run the same command again" in note for note in summary.notes)
    assert find_result(summary)["completions"] == len(answered)
    with FaultServer(lambda prompt: Plan(), answer=lambda prompt: r"\boxed{3}") as back:
        again = evaluate(lake, make_served(back, data))
    assert again.status == "finished"
    assert len(read(lake, "evaluations")) == 12
    assert find_result(again)["completions"] == 12
    assert "unanswered" not in again.extra


@pytest.mark.parametrize("fault", ["refused", "garbage", "empty", "null", "cut"])
def test_a_request_that_fails_is_a_reject_and_stops_nothing(tmp_path: Path, fault: str) -> None:
    def choose(prompt: str) -> Plan:
        return Plan((fault,), forever=True) if "3 + 4" in prompt else Plan()

    data = write_rows(tmp_path / "q.jsonl", QUESTIONS)
    lake = Lake(tmp_path / "lake")
    with FaultServer(choose, answer=answer_right) as server:
        summary = evaluate(lake, make_served(server, data))
    assert find_result(summary)["verdicts"] == {"correct": 2}
    [reject] = read(lake, "rejects")
    assert json.loads(reject["content"])["sample_index"] == 0
    assert summary.extra["unanswered"] == 1


def test_an_answer_of_a_megabyte_is_a_row_with_a_verdict(tmp_path: Path) -> None:
    long = "1 + " * 250_000 + r"so \boxed{7}."
    data = write_rows(tmp_path / "q.jsonl", QUESTIONS[:1])
    with FaultServer(lambda prompt: Plan(), answer=lambda prompt: long) as server:
        lake = Lake(tmp_path / "lake")
        summary = evaluate(lake, make_served(server, data, max_tokens=1_000_000))
    assert find_result(summary)["verdicts"] == {"correct": 1}
    assert len(read(lake, "evaluations")[0]["completion"]) == len(long)


def write_completions(folder: Path) -> str:
    rows = [
        {"question": "a?", "answer": "7", "completion": r"<think>x</think> \boxed{7}", "id": 5},
        {"question": "a?", "answer": "7", "completion": "<think>it is 7, no, 8"},
        {"question": "b?", "answer": "8", "completion": "<think>\nIt is 8 and", "finish_reason": "length"},
        {"question": "c?", "answer": "8", "completion": ""},
        {"question": "d?", "completion": "8"},
        {"question": " ", "answer": "8", "completion": "8"},
        {"question": "e?", "answer": "8"},
    ]
    return write_rows(folder / "done.jsonl", rows)


def test_ready_completions_are_read_and_graded(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    config = EvaluateConfig(
        model="published", task="own", completions=write_completions(tmp_path), processes=1
    )
    summary = evaluate(lake, config)
    rows = {(row["question"], row["sample_index"]): row for row in read(lake, "evaluations")}
    assert len(rows) == 5
    assert rows["a?", 0]["response"] == r"\boxed{7}"
    assert json.loads(rows["a?", 0]["metadata"]) == {"id": 5}
    assert rows["a?", 1]["response"] is None
    assert rows["b?", 0]["truncated"]
    assert {row["reason"] for row in read(lake, "rejects")} == {"missing_question", "missing_completion"}
    verdicts = {
        (row["question_id"], row["sample_index"], row["extraction"]): row["verdict"]
        for row in read(lake, "grades")
        if row["primary"]
    }
    by_question = {
        (question, index, extraction): verdicts[rows[question, index]["question_id"], index, extraction]
        for question, index in rows
        for extraction in ("stated", "last")
    }
    assert by_question["a?", 0, "stated"] == "correct"
    assert by_question["a?", 1, "stated"] == "unclosed_think"
    assert by_question["a?", 1, "last"] == "wrong"
    assert by_question["b?", 0, "stated"] == "truncated"
    assert by_question["b?", 0, "last"] == "correct"
    assert by_question["c?", 0, "last"] == "no_answer"
    assert by_question["d?", 0, "stated"] == "ungradable"
    assert find_result(summary)["questions"] == 4
    # Reading the same file into the lake again adds nothing.
    again = evaluate(lake, config, force=True)
    assert (len(read(lake, "evaluations")), again.tables.get("evaluations", 0)) == (5, 0)


def test_ready_completions_of_a_multiple_choice_have_their_options(tmp_path: Path) -> None:
    row = {"question": "a?", "options": ["x", "y", "z"], "answer": "B", "completion": r"\boxed{B}"}
    rows = [row, {**row, "answer": "y", "completion": "C"}, {**row, "answer": "q"}, {**row, "options": "xyz"}]
    lake = Lake(tmp_path / "lake")
    path = write_rows(tmp_path / "done.jsonl", rows)
    summary = evaluate(lake, EvaluateConfig(model="m", task="gpqa_diamond", completions=path))
    stored = read(lake, "evaluations")
    assert [(row["options"], row["answer"]) for row in stored] == [(["x", "y", "z"], "B")] * 2
    assert {row["sample_index"] for row in stored} == {0, 1}
    assert find_result(summary)["verdicts"] == {"correct": 1, "wrong": 1}
    assert {row["reason"] for row in read(lake, "rejects")} == {"missing_answer", "missing_choice"}


def test_traces_of_the_lake_are_graded(tmp_path: Path) -> None:
    rows = [
        {"question": "a?", "answer": "7", "level": 3, "trace": "It is 7.", "solution": r"\boxed{7}"},
        {"question": "b?", "answer": "8", "level": 4, "trace": "No idea.", "solution": r"\boxed{8}"},
    ]
    lake = Lake(tmp_path / "lake")
    ingest(lake, IngestConfig(source=write_rows(tmp_path / "t.jsonl", rows), teacher="author"))
    config = EvaluateConfig(model="author", task="own", where_traces="teacher = 'author'", processes=1)
    summary = evaluate(lake, config)
    stored = {row["question"]: row for row in read(lake, "evaluations")}
    assert set(stored) == {"a?", "b?"}
    metadata = json.loads(stored["a?"]["metadata"])
    assert (metadata["level"], metadata["teacher"], len(metadata["trace_id"])) == (3, "author", 32)
    assert (stored["a?"]["think"], stored["a?"]["source"]) == ("It is 7.", "traces")
    assert find_result(summary)["completions"] == 2
    assert find_result(summary, "last")["completions"] == 2


def test_published_traces_are_graded_as_published(tmp_path: Path, shared_data: Path) -> None:
    lake = Lake(tmp_path / "lake")
    config = EvaluateConfig(
        model="skyt1", task="math500", completions=str(shared_data / "skyt1_27b_math500.jsonl")
    )
    summary = evaluate(lake, config)
    assert find_result(summary)["questions"] == 500
    [row] = lake.sql(
        "SELECT count(*) FILTER ((verdict = 'correct') = (e.metadata->>'correct')::BOOLEAN) AS same "
        "FROM grades JOIN evaluations e USING (evaluation_id) WHERE \"primary\" AND extraction = 'last'"
    ).to_pylist()
    assert row["same"] >= 0.97 * 500
