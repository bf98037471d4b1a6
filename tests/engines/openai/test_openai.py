"""The OpenAI engine against a server that injects faults."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from engines.openai.fault_server import MODEL, FaultServer, Plan

from rlt_data.engines import (
    Completion,
    EngineOptions,
    FailedRequest,
    GenerationRequest,
    SamplingParameters,
    open_engine,
)
from rlt_data.errors import EngineError, UsageError
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.models.identity import ModelIdentity
from rlt_data.stages.generate import GenerateConfig, generate

CLOSE = "<|end_of_explanation|>"
SAMPLING = SamplingParameters(0.7, 1.0, 0, 64, (CLOSE,))
KEY = "sk-a-very-secret-key"
# A good answer comes within the timeout on a loaded machine too; a slow one never does.
QUICK = {"concurrency": 8, "timeout": 2.5, "attempts": 4, "backoff": 0.02, "ready_timeout": 5.0}

# The faults of a prompt's first tries, and its result.
PLANS = {
    "good": (Plan(), "trace"),
    "busy": (Plan(("busy",)), "trace"),
    "error": (Plan(("error", "unavailable", "error")), "trace"),
    "cut": (Plan(("cut", "cut_midway")), "trace"),
    "slow": (Plan(("slow",)), "trace"),
    "trickle": (Plan(("trickle",)), "trace"),
    "garbage": (Plan(("garbage", "empty")), "trace"),
    "partial": (Plan(("partial",), forever=True), "trace"),
    "length": (Plan(("length",), forever=True), "trace"),
    "always_error": (Plan(("error",), forever=True), "http_500"),
    "always_cut": (Plan(("cut",), forever=True), "connection"),
    "always_slow": (Plan(("slow",), forever=True), "timeout"),
    "always_trickle": (Plan(("trickle",), forever=True), "timeout"),
    "always_garbage": (Plan(("garbage",), forever=True), "invalid_answer"),
    "always_empty": (Plan(("empty",), forever=True), "empty_answer"),
    "odd": (Plan(("odd",), forever=True), "invalid_answer"),
    "refused": (Plan(("refused",), forever=True), "http_400"),
    "cut_off": (Plan(("refused_at_length",), forever=True), "http_400"),
    "too_long": (Plan(("too_long",), forever=True), "over_context"),
}
NAMES = list(PLANS)


def choose_plan(prompt: str) -> Plan:
    """The plan that the question in a prompt is named after."""
    found = [name for name in NAMES if f"[{name}]" in prompt]
    return PLANS[found[0]][0]


def open_server(server: FaultServer, **options: Any) -> Any:
    identity = ModelIdentity("teacher", MODEL, MODEL, None)
    extra = {"base_url": server.base_url, **QUICK, **options}
    return open_engine("openai", identity, EngineOptions(extra=extra))


def ask(server: FaultServer, prompts: list[str], **options: Any) -> dict[str, Completion | FailedRequest]:
    engine = open_server(server, **options)
    requests = (GenerationRequest(prompt, prompt, index) for index, prompt in enumerate(prompts))
    answers = list(engine.generate(requests, SAMPLING))
    assert Counter(answer.key for answer in answers) == Counter(prompts)
    return {answer.key: answer for answer in answers}


def make_lake(folder: Path, questions: list[str]) -> Lake:
    lake = Lake(folder / "lake")
    rows = [
        {
            "question_id": hash_content("question", question),
            "question": question,
            "solution": "7",
            "solution_rendered": False,
            "run_id": "test",
        }
        for question in questions
    ]
    lake.table("questions").append(pl.DataFrame(rows), run_id="test")
    return lake


@pytest.fixture
def faulty() -> Iterator[FaultServer]:
    with FaultServer(choose_plan) as server:
        yield server


def test_every_request_is_answered_once_whatever_the_server_does(faulty: FaultServer) -> None:
    prompts = [f"[{name}] {copy}" for copy in range(3) for name in NAMES]
    answers = ask(faulty, prompts)
    for prompt, answer in answers.items():
        plan, fate = PLANS[prompt.split("]")[0][1:]]
        if fate == "trace":
            assert isinstance(answer, Completion), answer
            assert faulty.served[prompt] == 1
            expected = len(plan.faults) + (plan.faults[-1:] not in (("partial",), ("length",)))
            assert faulty.tries[prompt] == expected
        else:
            assert isinstance(answer, FailedRequest)
            assert answer.reason == fate
            assert faulty.tries[prompt] == (QUICK["attempts"] if prompt.startswith("[always") else 1)
    assert isinstance(partial := answers["[partial] 0"], Completion)
    assert (partial.text, partial.finish_reason) == ("because it", "partial")
    assert isinstance(cut := answers["[length] 0"], Completion)
    assert (cut.text, cut.finish_reason, cut.token_count) == ("because it is so", "length", 4)
    assert isinstance(good := answers["[good] 0"], Completion)
    assert (good.text, good.finish_reason) == (f"because.{CLOSE}", "stop")
    assert good.token_ids is None


def test_retry_after_is_honored_by_all_requests() -> None:
    with FaultServer(lambda prompt: Plan(("busy",)) if prompt == "first" else Plan()) as server:
        ask(server, ["first", *map(str, range(20))], concurrency=1)
        tries = server.moments["first"]
        assert tries[1] - tries[0] >= 0.3
        others = [
            moment for prompt, moments in server.moments.items() if prompt != "first" for moment in moments
        ]
        assert min(others) >= tries[0] + 0.3


def test_questions_end_as_traces_or_rejects_exactly_once(
    faulty: FaultServer, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    faulty.api_key = KEY
    questions = [f"[{name}] question {copy}" for copy in range(4) for name in NAMES]
    lake = make_lake(tmp_path, questions)
    config = GenerateConfig(
        teacher=MODEL,
        tokenizer=str(tiny_model),
        base_url=faulty.base_url,
        engine_options=dict(QUICK),
        samples=2,
        max_tokens=64,
        allow_truncated=True,
    )
    summary = generate(lake, config)
    traces = lake.table("traces").scan().collect()
    rejects = lake.table("rejects").scan().collect()
    keys = [*traces["trace_id"], *rejects["key"]]
    assert len(keys) == len(set(keys)) == 2 * len(questions) == summary.rows_in
    fates = Counter(fate for _, fate in PLANS.values())
    assert traces.height == summary.rows_out == 8 * fates.pop("trace")
    assert Counter(rejects["reason"]) == {reason: 8 * count for reason, count in fates.items()}
    states = Counter(traces["state"])
    assert states == {"closed": 56, "missing_close": 16}
    assert Counter(traces["finish_reason"]) == {"stop": 56, "length": 8, "partial": 8}
    assert traces["truncated"].sum() == 8
    assert traces["completion_token_ids"].null_count() == traces.height
    assert traces["logprob_mode"].unique().to_list() == ["processed"]
    assert traces["think"].str.contains(CLOSE, literal=True).sum() == 0
    # The server never sees a request sent over a connection that it has just broken.
    # Two more probes came before the work, when the server's capabilities were detected.
    seen = sum(faulty.tries.values()) + faulty.probes - 2
    assert seen <= summary.extra["requests_sent"] <= seen + len(questions)
    assert generate(lake, config).status == "already finished"
    for file in (tmp_path / "lake").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
    assert KEY not in summary.model_dump_json()
    assert all("[hidden]" in detail for detail in rejects.filter(pl.col("reason") == "http_400")["detail"])


def test_requests_are_read_as_connections_become_free(faulty: FaultServer) -> None:
    given = 0

    def requests() -> Iterator[GenerationRequest]:
        nonlocal given
        for index in range(200):
            given += 1
            yield GenerationRequest(str(index), f"[good] {index}", index)

    engine = open_server(faulty, concurrency=4)
    answers = engine.generate(requests(), SAMPLING)
    next(answers)
    assert given <= 2 * 4 + 1
    answers.close()
    assert given < 200
    assert len(list(engine.generate(requests(), SAMPLING))) == 200


def test_a_server_that_becomes_unreachable_stops_the_work(faulty: FaultServer) -> None:
    engine = open_server(faulty, concurrency=2, ready_timeout=0.5)
    answers = engine.generate((GenerationRequest(str(n), f"[good] {n}", n) for n in range(500)), SAMPLING)
    next(answers)
    faulty.stop()
    with pytest.raises(EngineError, match=r"not ready after 0\.5 s"):
        list(answers)


def test_a_server_behind_a_gateway_is_waited_for(faulty: FaultServer) -> None:
    engine = open_server(faulty, concurrency=4, attempts=2)
    answers = engine.generate((GenerationRequest(str(n), f"[good] {n}", n) for n in range(40)), SAMPLING)
    found = [next(answers)]
    faulty.back_at = time.monotonic() + 1.0
    found += answers
    assert len({answer.key for answer in found}) == 40
    assert all(isinstance(answer, Completion) for answer in found)


def test_a_server_that_stops_answering_fails_no_request(
    faulty: FaultServer, tmp_path: Path, tiny_model: Path
) -> None:
    lake = make_lake(tmp_path, [f"[good] question {index}" for index in range(30)])

    def answer(prompt: str) -> str:
        faulty.broken = sum(faulty.served.values()) > 10
        return f"because.{CLOSE}"

    faulty.answer = answer
    config = GenerateConfig(
        teacher=MODEL,
        tokenizer=str(tiny_model),
        base_url=faulty.base_url,
        engine_options={**QUICK, "concurrency": 2},
        max_tokens=64,
    )
    with pytest.raises(EngineError, match="no longer answers any request") as caught:
        generate(lake, config)
    assert "run the same command again" in str(caught.value)
    assert 10 <= lake.table("traces").count() < 30
    assert lake.table("rejects").count() == 0
    faulty.answer, faulty.broken = (lambda prompt: f"because.{CLOSE}"), False
    assert generate(lake, config).rows_out == lake.table("traces").count() == 30
    assert lake.table("rejects").count() == 0


def test_a_failing_server_is_not_mistaken_for_a_chat_only_one(faulty: FaultServer) -> None:
    faulty.broken = True
    with pytest.raises(EngineError, match=r"fails on /completions: .*status 500"):
        open_server(faulty)


def test_a_pause_that_the_server_requests_is_not_a_failed_try() -> None:
    with FaultServer(lambda prompt: Plan(("limited",) * 7)) as server:
        answers = ask(server, ["a", "b"], attempts=2, timeout=20.0)
    assert all(isinstance(answer, Completion) for answer in answers.values())
    with FaultServer(lambda prompt: Plan(("limited",), forever=True)) as server:
        answers = ask(server, ["a"], attempts=2, timeout=0.3)
    assert isinstance(failed := answers["a"], FailedRequest)
    assert failed.reason == "http_429"


def test_finished_answers_are_committed_while_others_are_pending(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLT_DATA_COMMIT_SECONDS", "0.1")
    lake = make_lake(tmp_path, [*(f"early {index}" for index in range(5)), "late"])
    committed = 0

    def answer(prompt: str) -> str:
        nonlocal committed
        deadline = time.monotonic() + 20
        while "late" in prompt and committed < 5 and time.monotonic() < deadline:
            time.sleep(0.05)
            committed = Lake(lake.uri).table("traces").count()
        return f"because.{CLOSE}"

    with FaultServer(lambda prompt: Plan(), answer=answer) as server:
        options = {**QUICK, "timeout": 30.0}
        config = GenerateConfig(
            teacher=MODEL, tokenizer=str(tiny_model), base_url=server.base_url, engine_options=options
        )
        assert generate(lake, config).rows_out == 6
    assert committed == 5


def test_an_absent_server_is_waited_for_within_the_limit() -> None:
    options = EngineOptions(extra={"base_url": "http://127.0.0.1:9/v1", "ready_timeout": 0.4})
    begin = time.monotonic()
    with pytest.raises(EngineError, match="not ready"):
        open_engine("openai", ModelIdentity("teacher", "x", "x", None), options)
    assert time.monotonic() - begin < 5


def test_a_wrong_key_stops_at_once_and_is_not_shown(
    faulty: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty.api_key = "another"
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(EngineError, match="refuses access") as caught:
        open_server(faulty)
    assert KEY not in str(caught.value)
    assert "OPENAI_API_KEY" in str(caught.value)


def test_a_key_is_sent_without_its_line_break_and_never_shown_in_part(
    faulty: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty.api_key = KEY
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    failed = ask(faulty, ["[cut_off] key"])["[cut_off] key"]
    assert isinstance(failed, FailedRequest)
    assert "[hidden]" in failed.detail
    assert KEY[:4] not in failed.detail
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\r\nX-Other: 1")
    with pytest.raises(UsageError, match="cannot be sent") as caught:
        open_server(faulty)
    assert "OPENAI_API_KEY" in str(caught.value)
    assert KEY[:4] not in str(caught.value)


def test_a_model_that_is_not_served_is_named(faulty: FaultServer) -> None:
    with pytest.raises(UsageError, match="does not serve 'other'") as caught:
        open_server(faulty, served_model="other")
    assert MODEL in str(caught.value)


def test_chat_completions_lose_the_prefill_and_report_it(tmp_path: Path) -> None:
    def answer(prompt: str) -> str:
        assert "<|begin_of_solution|>7<|end_of_solution|>" in prompt
        return f"<|begin_of_solution|>7<|end_of_solution|>\n\n<|begin_of_explanation|>\n\nSo it is.{CLOSE}"

    with FaultServer(lambda prompt: Plan(), answer=answer, completions=False) as server:
        lake = Lake(tmp_path)
        row = {
            "question_id": "q",
            "question": "?",
            "solution": "7",
            "solution_rendered": False,
            "run_id": "r",
        }
        lake.table("questions").append(pl.DataFrame([row]), run_id="r")
        summary = generate(
            lake, GenerateConfig(teacher=MODEL, base_url=server.base_url, engine_options=dict(QUICK))
        )
    trace = lake.table("traces").scan().collect().to_dicts()[0]
    assert (trace["think"], trace["state"]) == ("So it is.", "closed")
    assert trace["logprob_mode"] is None
    assert any("cannot prefill" in note for note in summary.notes)
    assert server.bodies[0]["messages"][0]["role"] == "system"


def test_completions_need_a_local_chat_template(faulty: FaultServer, tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    row = {"question_id": "q", "question": "?", "solution": "7", "solution_rendered": False, "run_id": "r"}
    lake.table("questions").append(pl.DataFrame([row]), run_id="r")
    config = GenerateConfig(teacher=MODEL, base_url=faulty.base_url, engine_options=dict(QUICK))
    with pytest.raises(Exception, match="chat template") as caught:
        generate(lake, config)
    assert "--tokenizer" in str(caught.value)


def test_the_seed_of_a_request_reaches_the_server(faulty: FaultServer) -> None:
    ask(faulty, ["[good] a", "[good] b"])
    assert sorted(body["seed"] for body in faulty.bodies) == [0, 1]
    assert all(body["stop"] == [CLOSE] for body in faulty.bodies)


@pytest.mark.parametrize("room", [57, 1, 0, -3])
def test_a_request_gets_the_room_that_its_prompt_leaves(room: int) -> None:
    with FaultServer(lambda prompt: Plan(), context=7 + room) as server:
        answer = ask(server, ["a"])["a"]
    sent = [body["max_tokens"] for body in server.bodies]
    if room > 0:
        assert isinstance(answer, Completion)
        assert sent == [64, 1, room]
    else:
        assert isinstance(answer, FailedRequest)
        assert answer.reason == "over_context"
        assert sent == [64, 1]
