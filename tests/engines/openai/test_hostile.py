"""A server that sends too much, or keeps a request waiting: each has a limit, and its own reason."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from engines.openai.fault_server import ENDLESS_BYTES, MODEL, FaultServer, Plan

from rlt_data.engines import (
    Completion,
    EngineOptions,
    FailedRequest,
    GenerationRequest,
    SamplingParameters,
    open_engine,
)
from rlt_data.errors import EngineError
from rlt_data.lake import Lake
from rlt_data.models import resolve_model
from rlt_data.models.identity import ModelIdentity
from rlt_data.progress import Reporter
from rlt_data.reward.backends.openai import ServerBackend
from rlt_data.settings import Settings
from rlt_data.stages.generate import GenerateConfig, generate

SAMPLING = SamplingParameters(0.7, 1.0, 0, 20, ("<|end_of_explanation|>",))
QUICK = {"concurrency": 2, "timeout": 20.0, "attempts": 2, "backoff": 0.01, "ready_timeout": 5.0}
DEAD = "http://127.0.0.1:9/v1"


def ask(server: FaultServer, notify: Any = None, **options: Any) -> Completion | FailedRequest:
    extra = {"base_url": server.base_url, **QUICK, **options}
    engine = open_engine(
        "openai", ModelIdentity("teacher", MODEL, MODEL, None), EngineOptions(extra=extra, notify=notify)
    )
    message = (("user", "hello"),)
    (answer,) = engine.generate([GenerationRequest("k", "hello", 0, message)], SAMPLING)
    return answer


@pytest.mark.parametrize(
    ("fault", "reason", "tries"),
    [
        ("endless", "answer_too_large", 1),
        ("declared", "answer_too_large", 1),
        ("long_text", "answer_too_large", 1),
        ("many_tokens", "answer_too_large", 1),
        ("null", "invalid_answer", 1),
        ("compressed", "invalid_answer", 2),
        ("nested", "invalid_answer", 2),
    ],
)
@pytest.mark.parametrize("completions", [True, False])
def test_an_answer_that_cannot_be_the_requested_one(
    fault: str, reason: str, tries: int, completions: bool
) -> None:
    with FaultServer(lambda prompt: Plan((fault,), forever=True), completions=completions) as server:
        answer = ask(server)
    assert isinstance(answer, FailedRequest)
    assert (answer.reason, server.tries["hello"]) == (reason, tries)
    # Some megabytes are in the buffers of the system before the connection breaks.
    assert server.bytes_sent < ENDLESS_BYTES // 8


def test_a_long_pause_ends_with_the_total_time_of_a_request() -> None:
    notes: list[str] = []
    # A small request is not answered either, so that the work stops, and nothing is rejected.
    with (
        FaultServer(lambda prompt: Plan(("wait_long",), forever=True)) as server,
        pytest.raises(EngineError, match=r"requests a pause of more than 5 s \(total_timeout\)"),
    ):
        ask(server, notes.append, total_timeout=5)
    (note,) = notes
    found = re.fullmatch(r".* requests a pause: waiting (\d+) s \(the rest of total_timeout\)", note)
    assert found is not None, note
    assert int(found[1]) <= 5


def test_a_body_that_drips_ends_with_the_total_time_of_a_request() -> None:
    with FaultServer(lambda prompt: Plan(("trickle",), forever=True)) as server:
        answer = ask(server, total_timeout=0.5, attempts=1000)
    assert isinstance(answer, FailedRequest)
    assert answer.reason == "timeout"


def test_a_list_of_models_that_drips_ends_with_the_time_to_become_ready() -> None:
    with (
        FaultServer(lambda prompt: Plan(), drips=True) as server,
        pytest.raises(EngineError, match=r"not ready after 5 s: no whole answer"),
    ):
        ask(server, ready_timeout=5)


def test_an_absent_server_is_reported_at_once(
    tmp_path: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    lake = Lake(tmp_path)
    row = {"question_id": "q", "question": "?", "solution": "7", "solution_rendered": False, "run_id": "r"}
    lake.table("questions").append(pl.DataFrame([row]), run_id="r")
    config = GenerateConfig(
        teacher=MODEL, tokenizer=str(tiny_model), base_url=DEAD, engine_options={"ready_timeout": 2.0}
    )
    began = time.monotonic()
    with pytest.raises(EngineError, match="not ready after 2 s"):
        generate(lake, config, reporter=Reporter())
    assert time.monotonic() - began >= 2.0
    shown = capfd.readouterr().err
    assert shown.count(f"the server at {DEAD} does not answer (") == 1
    assert "trying again for 2 s (engine option ready_timeout)" in shown


def test_a_server_is_awaited_before_a_tokenizer_is_loaded(tmp_path: Path, tiny_model: Path) -> None:
    """Loading it takes seconds, in which nothing would be said."""
    tokenizer = shutil.copytree(tiny_model, tmp_path / "model")
    (tokenizer / "tokenizer.json").write_text("{}", encoding="utf-8")
    lake = Lake(tmp_path / "lake")
    row = {"question_id": "q", "question": "?", "solution": "7", "solution_rendered": False, "run_id": "r"}
    lake.table("questions").append(pl.DataFrame([row]), run_id="r")
    config = GenerateConfig(
        teacher=MODEL, tokenizer=str(tokenizer), base_url=DEAD, engine_options={"ready_timeout": 0.5}
    )
    with pytest.raises(EngineError, match=r"not ready after 0\.5 s"):
        generate(lake, config)


def test_an_absent_server_of_students_is_reported_at_once(tiny_model: Path) -> None:
    student = resolve_model(str(tiny_model), role="student", settings=Settings(), need="tokenizer")
    notes: list[str] = []
    options = {"base_url": DEAD, "ready_timeout": 1.0}
    with pytest.raises(EngineError, match="not ready after 1 s"):
        ServerBackend(student, 1.0, options=options, notify=notes.append)
    assert len(notes) == 1
    assert f"the server at {DEAD} does not answer" in notes[0]
