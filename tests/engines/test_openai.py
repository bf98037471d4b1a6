"""The engine behind OpenAI-compatible servers, against a server that injects faults."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from fault_server import MODEL, FaultServer, Plan

from rlt_data.engines import (
    Completion,
    EngineOptions,
    FailedRequest,
    GenerationRequest,
    SamplingParameters,
    open_engine,
)
from rlt_data.engines.openai_client import read_retry_after
from rlt_data.engines.openai_options import hide_secrets, read_server_options
from rlt_data.engines.openai_protocol import ServerTraits, read_answer
from rlt_data.errors import EngineError, UsageError
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.models.identity import ModelIdentity
from rlt_data.stages.generate import GenerateConfig, generate

CLOSE = "<|end_of_explanation|>"
SAMPLING = SamplingParameters(0.7, 1.0, 0, 64, (CLOSE,))
KEY = "sk-a-very-secret-key"
QUICK = {"concurrency": 8, "timeout": 0.6, "attempts": 4, "backoff": 0.02, "ready_timeout": 5.0}

# What a prompt meets on its first tries, and what becomes of it.
PLANS = {
    "good": (Plan(), "trace"),
    "busy": (Plan(("busy",)), "trace"),
    "error": (Plan(("error", "unavailable", "error")), "trace"),
    "cut": (Plan(("cut", "cut_midway")), "trace"),
    "slow": (Plan(("slow",)), "trace"),
    "garbage": (Plan(("garbage", "empty")), "trace"),
    "partial": (Plan(("partial",), forever=True), "trace"),
    "length": (Plan(("length",), forever=True), "trace"),
    "always_error": (Plan(("error",), forever=True), "http_500"),
    "always_cut": (Plan(("cut",), forever=True), "connection"),
    "always_slow": (Plan(("slow",), forever=True), "timeout"),
    "always_garbage": (Plan(("garbage",), forever=True), "invalid_answer"),
    "always_empty": (Plan(("empty",), forever=True), "empty_answer"),
    "refused": (Plan(("refused",), forever=True), "http_400"),
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
    requests = (GenerationRequest(prompt, prompt, place) for place, prompt in enumerate(prompts))
    answers = list(engine.generate(requests, SAMPLING))
    assert Counter(answer.key for answer in answers) == Counter(prompts)
    return {answer.key: answer for answer in answers}


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
            assert faulty.tries[prompt] == (1 if fate in ("http_400", "over_context") else QUICK["attempts"])
    assert isinstance(partial := answers["[partial] 0"], Completion)
    assert (partial.text, partial.finish_reason) == ("because it", "partial")
    assert isinstance(cut := answers["[length] 0"], Completion)
    assert (cut.text, cut.finish_reason, cut.token_count) == ("because it is so", "length", 4)
    assert isinstance(good := answers["[good] 0"], Completion)
    assert (good.text, good.finish_reason) == (f"because.{CLOSE}", "stop")
    assert good.token_ids is None


def test_retry_after_is_honoured_by_all_requests() -> None:
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
    lake = Lake(tmp_path / "lake")
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
    assert states == {"closed": 48, "missing_close": 16}
    assert Counter(traces["finish_reason"]) == {"stop": 48, "length": 8, "partial": 8}
    assert traces["truncated"].sum() == 8
    assert traces["completion_token_ids"].null_count() == traces.height
    assert traces["logprob_mode"].unique().to_list() == ["processed"]
    assert traces["think"].str.contains(CLOSE, literal=True).sum() == 0
    # A request sent over a connection that the server has just cut is never seen there.
    seen = sum(faulty.tries.values())
    assert seen <= summary.extra["requests_sent"] <= seen + len(questions)
    assert generate(lake, config).status == "already finished"
    for file in (tmp_path / "lake").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file
    assert KEY not in summary.model_dump_json()
    assert all("[hidden]" in detail for detail in rejects.filter(pl.col("reason") == "http_400")["detail"])


def test_requests_are_taken_as_places_become_free(faulty: FaultServer) -> None:
    taken = 0

    def requests() -> Iterator[GenerationRequest]:
        nonlocal taken
        for place in range(200):
            taken += 1
            yield GenerationRequest(str(place), f"[good] {place}", place)

    engine = open_server(faulty, concurrency=4)
    answers = engine.generate(requests(), SAMPLING)
    next(answers)
    assert taken <= 2 * 4 + 1
    answers.close()
    assert taken < 200
    assert len(list(engine.generate(requests(), SAMPLING))) == 200


def test_a_server_that_goes_away_stops_the_work(faulty: FaultServer) -> None:
    engine = open_server(faulty, concurrency=2, ready_timeout=0.5)
    answers = engine.generate((GenerationRequest(str(n), f"[good] {n}", n) for n in range(500)), SAMPLING)
    next(answers)
    faulty.stop()
    with pytest.raises(EngineError, match=r"not ready after 0\.5 s"):
        list(answers)


def test_a_server_that_is_not_there_is_waited_for_so_long() -> None:
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


def test_a_model_that_is_not_served_is_named(faulty: FaultServer) -> None:
    with pytest.raises(UsageError, match="does not serve 'other'") as caught:
        open_server(faulty, served_model="other")
    assert MODEL in str(caught.value)


def test_chat_completions_alone_lose_the_prefill_and_say_so(tmp_path: Path) -> None:
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
    assert any("could not be prefilled" in note for note in summary.notes)
    assert server.bodies[0]["messages"][0]["role"] == "system"


def test_completions_need_a_chat_template_here(faulty: FaultServer, tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    row = {"question_id": "q", "question": "?", "solution": "7", "solution_rendered": False, "run_id": "r"}
    lake.table("questions").append(pl.DataFrame([row]), run_id="r")
    config = GenerateConfig(teacher=MODEL, base_url=faulty.base_url, engine_options=dict(QUICK))
    with pytest.raises(Exception, match="chat template") as caught:
        generate(lake, config)
    assert "--tokenizer" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"engine_options": {"api_key": KEY}}, "api_key"),
        ({"engine_options": {"Authorization": f"Bearer {KEY}"}}, "Authorization"),
        ({"base_url": f"http://me:{KEY}@127.0.0.1/v1"}, "base_url"),
        ({"base_url": f"http://127.0.0.1/v1?api_key={KEY}"}, "base_url"),
    ],
)
def test_secrets_are_refused_before_anything_is_stored(options: dict[str, Any], where: str) -> None:
    with pytest.raises(UsageError) as caught:
        GenerateConfig(teacher="x", **options)
    assert caught.value.where == where
    assert KEY not in str(caught.value)


def test_unknown_options_are_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no option 'concurency'") as caught:
        read_server_options({"base_url": "http://localhost/v1", "concurency": 3})
    assert caught.value.remedy == "did you mean 'concurrency'?"
    with pytest.raises(UsageError, match="needs the address"):
        read_server_options({})
    with pytest.raises(UsageError, match="greater than or equal to 1"):
        read_server_options({"base_url": "http://localhost/v1", "concurrency": 0})


def test_retry_after_is_seconds_or_a_date() -> None:
    assert read_retry_after(None) is None
    assert read_retry_after("2") == 2.0
    assert read_retry_after("-3") == 0.0
    assert read_retry_after("soon") is None
    later = read_retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True))
    assert later == pytest.approx(30, abs=2)
    assert read_retry_after("1e9") == 600.0


def test_hidden_secrets_leave_no_trace() -> None:
    assert hide_secrets(f"a {KEY} b {KEY}", [None, KEY]) == "a [hidden] b [hidden]"


@pytest.mark.parametrize(
    ("choice", "text", "finish", "known"),
    [
        ({"text": "a", "finish_reason": "stop", "stop_reason": CLOSE}, f"a{CLOSE}", "stop", True),
        ({"text": f"a{CLOSE}", "finish_reason": "stop", "stop_reason": CLOSE}, f"a{CLOSE}", "stop", True),
        ({"text": "a", "finish_reason": "stop", "stop_reason": None}, "a", "end", True),
        ({"text": "a", "finish_reason": "stop", "matched_stop": 2}, "a", "end", True),
        ({"text": "a", "finish_reason": "stop"}, f"a{CLOSE}", "stop", False),
        ({"text": "a", "finish_reason": "length"}, "a", "length", True),
        ({"text": "a", "finish_reason": "abort"}, "a", "partial", True),
        ({"text": None, "finish_reason": "content_filter"}, "", "partial", True),
        ({"text": "a\ud800b", "finish_reason": "length"}, "a\ufffdb", "length", True),
        ({"message": {"content": "a"}, "finish_reason": "eos"}, "a", "end", True),
    ],
)
def test_what_ended_an_answer(choice: dict[str, Any], text: str, finish: str, known: bool) -> None:
    traits = ServerTraits("completions", None, False, None, MODEL)
    answer = read_answer({"choices": [choice]}, GenerationRequest("k", "p", 0), SAMPLING, traits)
    assert (answer.completion.text, answer.completion.finish_reason) == (text, finish)
    assert answer.ending_known == known


def test_the_seed_of_a_request_reaches_the_server(faulty: FaultServer) -> None:
    ask(faulty, ["[good] a", "[good] b"])
    assert sorted(body["seed"] for body in faulty.bodies) == [0, 1]
    assert all(body["stop"] == [CLOSE] for body in faulty.bodies)
