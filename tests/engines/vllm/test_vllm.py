"""The real vLLM on this machine's device; skipped where it cannot run.

Most tests share one engine, which the last of them kills.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
from engines.scoring_lake import build_scoring_lake, compare_with_torch

from rlt_data.engines import (
    Completion,
    EngineOptions,
    FailedRequest,
    GenerationRequest,
    SamplingParameters,
    open_engine,
)
from rlt_data.engines.transformers import TransformersEngine
from rlt_data.engines.vllm.availability import explain_unusable
from rlt_data.engines.vllm.engine import VllmEngine
from rlt_data.errors import EngineError, UsageError
from rlt_data.formats import load_format, render_teacher_prompt
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.models import load_model, load_tokenizer, resolve_model
from rlt_data.models.identity import ModelIdentity
from rlt_data.settings import Settings
from rlt_data.stages.generate import GenerateConfig, generate
from rlt_data.stages.score import ScoreConfig, score

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

CONTEXT = 900
TEMPERATURE = 0.7
SAMPLING = SamplingParameters(TEMPERATURE, 1.0, 0, 48, ("e",))
PROMPTS = [
    "<|im_start|>user\nHow many dollars are 3 eggs at $2, and why is that so? Think about it.<|im_end|>\n",
    "<|im_start|>user\nShe sold 12 eggs every day. How many did she sell in 4 days?<|im_end|>\n",
    "<|im_start|>user\n" + "First add, then multiply. " * 8 + "<|im_end|>\n",
]


def find_engine_processes(host: int) -> list[psutil.Process]:
    """List the running processes of one engine: those of the host's process group."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == host and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def await_end(host: int, seconds: float = 15.0) -> list[psutil.Process]:
    deadline = time.monotonic() + seconds
    while (left := find_engine_processes(host)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


@pytest.fixture(scope="module")
def model(vllm_model: Path) -> ModelIdentity:
    return resolve_model(str(vllm_model), role="teacher", settings=Settings())


@pytest.fixture(scope="module")
def engine(model: ModelIdentity) -> Iterator[VllmEngine]:
    extra = {"max_model_len": CONTEXT, "block_size": 32, "kv_cache_memory_bytes": 1 << 28}
    engine = VllmEngine(model, EngineOptions(max_batch_rows=8, extra=extra))
    yield engine
    engine.close()


def make_requests(prompts: list[str], samples: int) -> list[GenerationRequest]:
    return [
        GenerationRequest(f"{index}.{sample}", prompt, 100 * index + sample)
        for index, prompt in enumerate(prompts)
        for sample in range(samples)
    ]


def run(
    engine: VllmEngine, requests: list[GenerationRequest], sampling: SamplingParameters = SAMPLING
) -> dict[str, Completion]:
    answers = list(engine.generate(requests, sampling))
    assert sorted(answer.key for answer in answers) == sorted(request.key for request in requests)
    return {answer.key: answer for answer in answers if isinstance(answer, Completion)}


def test_vllm_reports_its_configuration(engine: VllmEngine) -> None:
    facts = engine.start().await_ready()
    assert (facts["context"], facts["rows"], facts["dtype"]) == (CONTEXT, 8, "float32")
    assert facts["prefix_caching"]
    assert engine.version == "vllm 0.31.0"


def test_completions_match_their_finish_reason(engine: VllmEngine, model: ModelIdentity) -> None:
    answers = run(engine, make_requests(PROMPTS, 24), SamplingParameters(TEMPERATURE, 1.0, 0, 12, ("e", "4")))
    reasons = {answer.finish_reason for answer in answers.values()}
    assert reasons >= {"stop", "length"}
    for answer in answers.values():
        assert answer.token_ids is not None
        assert answer.logprobs is not None
        assert len(answer.token_ids) == len(answer.logprobs) == answer.token_count
        assert (answer.finish_reason == "stop") == (answer.text.endswith(("e", "4")))
        assert not any(stop in answer.text[:-1] for stop in ("e", "4"))
        assert (len(answer.token_ids) == 12) >= (answer.finish_reason == "length")


def test_the_end_token_is_in_the_token_ids_but_not_in_the_text(
    engine: VllmEngine, model: ModelIdentity
) -> None:
    answers = run(engine, make_requests(PROMPTS, 24), SamplingParameters(1.5, 1.0, 0, 200))
    ended = [answer for answer in answers.values() if answer.finish_reason == "end"]
    assert ended
    end = TransformersEngine(model, EngineOptions(device="cpu"))._tokenizer.eos_token_id
    for answer in ended:
        assert answer.token_ids is not None
        assert answer.token_ids[-1] == end
        assert not answer.text.endswith("<|im_end|>")
        assert answer.token_ids.count(end) == 1


def test_log_probabilities_are_those_under_the_temperature(engine: VllmEngine, model: ModelIdentity) -> None:
    import torch

    tokenizer = load_tokenizer(model)
    network = load_model(model, dtype="float32", device="cpu")
    assert engine.logprob_mode == "processed"
    for key, answer in run(engine, make_requests(PROMPTS, 2)).items():
        prompt = tokenizer.encode(PROMPTS[int(key[0])], add_special_tokens=False)
        assert answer.prompt_tokens == len(prompt)
        ids = torch.tensor([[*prompt, *answer.token_ids]])
        with torch.no_grad():
            logits = network(ids).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits / TEMPERATURE, dim=-1)
        expected = expected.gather(1, ids[0, len(prompt) :, None])[:, 0]
        assert answer.logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_draws_depend_on_the_seed_alone(engine: VllmEngine) -> None:
    requests = make_requests(PROMPTS, 6)
    first = run(engine, requests)
    again = run(engine, requests[::-1])
    assert {key: answer.token_ids for key, answer in first.items()} == {
        key: answer.token_ids for key, answer in again.items()
    }
    assert len({answer.token_ids for answer in first.values()}) > len(PROMPTS)
    same = [GenerationRequest(str(copy), PROMPTS[0], 7) for copy in range(3)]
    assert len({answer.token_ids for answer in run(engine, same).values()}) == 1


def test_samples_of_a_question_share_their_prompt(engine: VllmEngine) -> None:
    before = engine._cached_tokens, engine._prompt_tokens
    prompt = PROMPTS[2] + "A prompt that was not seen before. " * 6
    run(engine, make_requests([prompt], 8))
    assert 0 < engine.figures["prefix_cache_share"] < 1
    cached, total = engine._cached_tokens - before[0], engine._prompt_tokens - before[1]
    assert cached >= total * 0.6


def test_requests_are_read_as_others_finish(engine: VllmEngine) -> None:
    given = 0

    def requests() -> Iterator[GenerationRequest]:
        nonlocal given
        for request in make_requests(PROMPTS, 60):
            given += 1
            yield request

    answers = engine.generate(requests(), SAMPLING)
    next(answers)
    assert given <= 4 * 8 + 1
    answers.close()
    assert len(run(engine, make_requests(PROMPTS, 2))) == 6
    assert given <= 4 * 8 + 1


def test_requests_beyond_the_context_fail_with_the_arithmetic(engine: VllmEngine) -> None:
    requests = [GenerationRequest("long", "word " * CONTEXT, 1), GenerationRequest("short", "word", 1)]
    answers = {answer.key: answer for answer in engine.generate(requests, SAMPLING)}
    failed = answers["long"]
    assert isinstance(failed, FailedRequest)
    assert failed.reason == "over_context"
    assert f"context of {CONTEXT}" in failed.detail
    assert isinstance(answers["short"], Completion)


def test_a_completion_gets_the_room_that_its_prompt_leaves(engine: VllmEngine) -> None:
    requests = [GenerationRequest(str(seed), "word " * (CONTEXT // 8), seed) for seed in range(4)]
    answers = list(engine.generate(requests, SamplingParameters(1.0, 1.0, 0, 4 * CONTEXT)))
    for answer in answers:
        assert isinstance(answer, Completion)
        assert answer.prompt_tokens is not None
        assert answer.token_ids is not None
        assert answer.prompt_tokens + len(answer.token_ids) <= CONTEXT


def test_nucleus_sampling_is_not_called_full_vocabulary(engine: VllmEngine) -> None:
    run(engine, make_requests(PROMPTS[:1], 1), SamplingParameters(1.0, 0.5, 0, 4))
    assert engine.logprob_mode == "nucleus"
    run(engine, make_requests(PROMPTS[:1], 1))
    assert engine.logprob_mode == "processed"


def test_score_reuses_the_log_probabilities_of_the_engine(
    engine: VllmEngine, model: ModelIdentity, tmp_path: Path
) -> None:
    question, solution = "What is 3 + 4?", "7"
    format, tokenizer = load_format("stratos"), load_tokenizer(model)
    prompt = render_teacher_prompt(format, tokenizer, question, solution).text
    requests = [GenerationRequest(str(index), prompt, index) for index in range(64)]
    answers = [
        answer
        for answer in engine.generate(requests, SamplingParameters(TEMPERATURE, 1.0, 0, 3))
        if isinstance(answer, Completion) and answer.finish_reason == "length"
    ]
    lake = Lake(tmp_path)
    row = {"question_id": "q", "question": question, "solution": solution, "solution_rendered": False}
    lake.table("questions").append(pl.DataFrame([{**row, "run_id": "test"}]), run_id="test")
    traces = [
        {
            "trace_id": answer.key,
            "question_id": "q",
            "sample_index": int(answer.key),
            "origin": "generated",
            "teacher": model.name,
            "teacher_model": model.model,
            "teacher_revision": model.revision,
            "format": "stratos",
            "completion": answer.text,
            "think": answer.text,
            "state": "missing_close",
            "truncated": True,
            "completion_token_ids": answer.token_ids,
            "completion_logprobs": answer.logprobs,
            "logprob_mode": engine.logprob_mode,
            "logprob_dtype": engine.dtype,
            "temperature": TEMPERATURE,
            "run_id": "test",
        }
        for answer in answers
    ]
    lake.table("traces").append(pl.DataFrame(traces), run_id="test")
    summary = score(lake, ScoreConfig(students=(model.model,), device="cpu"))
    sources = lake.table("scores").scan().collect().get_column("teacher_source").value_counts()
    assert dict(sources.iter_rows())["engine"] > 5
    gap = summary.extra["engine_gap"]
    assert 0 < gap["mean"] <= gap["largest"] < 1e-3


def test_a_dead_engine_is_explained_and_leaves_no_process(engine: VllmEngine) -> None:
    host = engine.start()
    core = next(p for p in psutil.Process(host.process_id).children() if "EngineCore" in "".join(p.cmdline()))
    answers = engine.generate(iter(make_requests(PROMPTS, 200)), SamplingParameters(1.0, 1.0, 0, 200))
    next(answers)
    core.kill()
    with pytest.raises(EngineError, match="the vLLM engine died") as caught:
        list(answers)
    text = str(caught.value)
    assert "the last lines of its log" in text
    assert "ended with code -9" in text
    assert "run the same command again" in text
    assert str(host.log_path) in text
    assert host.log_path.is_file()
    assert await_end(host.process_id) == []
    host.log_path.unlink()


def test_a_model_that_vllm_has_no_kernel_for_is_refused_before_it_is_loaded(tiny_model: Path) -> None:
    identity = resolve_model(str(tiny_model), role="teacher", settings=Settings())
    unusable = explain_unusable(identity, EngineOptions())
    if unusable is None:
        pytest.skip("this build of vLLM has kernels for every size of head")
    assert "heads of size 8" in unusable
    other = open_engine("auto", identity)
    assert other.name == "transformers"
    assert "vLLM is installed but not used: " in other.notes[0]
    engine = VllmEngine(identity, EngineOptions())
    with pytest.raises(UsageError, match="no attention kernel for heads of size 8"):
        engine.start()


def test_a_student_scores_in_vllm_as_in_torch(tmp_path: Path, vllm_model: Path) -> None:
    lake = build_scoring_lake(tmp_path)
    options = {"kv_cache_memory_bytes": 1 << 28}
    compare_with_torch(lake, vllm_model, backend="vllm", backend_options=options)
    row = lake.table("scores").scan().filter(pl.col("backend") == "vllm").collect().to_dicts()[0]
    assert (row["dtype"], row["teacher_source"], row["temperature_student"]) == ("float32", "vllm", 0.7)
    assert list(Path(tempfile.gettempdir()).glob("rlt-data-scaled-*")) == []


def test_auto_is_vllm_where_it_can_run_the_model(model: ModelIdentity) -> None:
    engine = open_engine("auto", model)
    assert engine.name == "vllm"
    engine.close()


def test_a_killed_generation_resumes_and_leaves_no_process(tmp_path: Path, vllm_model: Path) -> None:
    lake = Lake(tmp_path / "lake")
    rows = [
        {
            "question_id": hash_content("question", question),
            "question": question,
            "solution": "7",
            "solution_rendered": False,
            "run_id": "test",
        }
        for question in (f"What is {index} plus 7?" for index in range(40))
    ]
    lake.table("questions").append(pl.DataFrame(rows), run_id="test")
    options: dict[str, Any] = {"max_model_len": 1024, "kv_cache_memory_bytes": 1 << 28}
    config = GenerateConfig(
        teacher=str(vllm_model),
        engine="vllm",
        engine_options=options,
        samples=4,
        max_tokens=160,
        max_batch_rows=4,
        allow_truncated=True,
    )
    script = (
        "import sys; from rlt_data.lake import Lake\n"
        "from rlt_data.stages.generate import GenerateConfig, generate\n"
        "generate(Lake(sys.argv[1]), GenerateConfig.model_validate_json(sys.argv[2]))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, lake.uri, config.model_dump_json()])
    deadline = time.monotonic() + 240
    while lake.table("traces").count() < 8 and time.monotonic() < deadline and child.poll() is None:
        time.sleep(0.1)
    host = next(
        p
        for p in psutil.Process(child.pid).children()
        if "rlt_data.engines.vllm.host" in " ".join(p.cmdline())
    )
    child.send_signal(signal.SIGKILL)
    child.wait()
    killed_at = lake.table("traces").count()
    assert await_end(host.pid) == []
    assert 8 <= killed_at < 160
    # Any engine resumes the run of another.
    summary = generate(lake, config.model_copy(update={"engine": "transformers", "engine_options": {}}))
    traces = lake.table("traces").scan().collect()
    assert traces.height == traces["trace_id"].n_unique() == 160 == summary.rows_out
    assert lake.table("rejects").count() == 0
    assert traces["run_id"].n_unique() == 1
    assert traces["engine"].str.starts_with("vllm 0.31.0").sum() == killed_at
    assert set(traces["logprob_mode"]) == {"processed"}
    assert (traces["completion_logprobs"].list.len() == traces["completion_tokens"]).all()
