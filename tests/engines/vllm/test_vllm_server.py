"""The OpenAI engine against a real vLLM server; skipped where vLLM cannot run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from engines.scoring_lake import build_scoring_lake, compare_with_torch
from engines.vllm_server import SERVED, run_server

from rlt_data.engines import Completion, EngineOptions, FailedRequest, GenerationRequest, SamplingParameters
from rlt_data.engines.openai.engine import OpenAIEngine
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.models import load_model, load_tokenizer, resolve_model
from rlt_data.models.identity import ModelIdentity
from rlt_data.settings import Settings
from rlt_data.stages.generate import GenerateConfig, generate

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

TEMPERATURE = 0.7
PROMPTS = [
    "<|im_start|>user\nHow many dollars are 3 eggs at $2?<|im_end|>\n",
    "<|im_start|>user\nShe sold 12 eggs every day.<|im_end|>\n",
]


@pytest.fixture(scope="module")
def server(vllm_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the address of a server whose log-probabilities are under the temperature."""
    log = tmp_path_factory.mktemp("server") / "log"
    with run_server(vllm_model, log, "--logprobs-mode", "processed_logprobs") as address:
        yield address


@pytest.fixture(scope="module")
def engine(server: str) -> OpenAIEngine:
    identity = ModelIdentity("teacher", SERVED, SERVED, None)
    return OpenAIEngine(identity, EngineOptions(extra={"base_url": server, "ready_timeout": 280.0}))


def run(
    engine: OpenAIEngine, sampling: SamplingParameters, samples: int = 8
) -> dict[str, Completion | FailedRequest]:
    requests = [
        GenerationRequest(f"{index}.{sample}", prompt, 2**51 + 100 * index + sample)
        for index, prompt in enumerate(PROMPTS)
        for sample in range(samples)
    ]
    answers = {answer.key: answer for answer in engine.generate(requests, sampling)}
    assert answers.keys() == {request.key for request in requests}
    return answers


def test_the_capabilities_of_the_server_are_detected(engine: OpenAIEngine) -> None:
    traits = engine.traits
    assert (traits.api, traits.is_vllm, traits.logprob_mode) == ("completions", True, "processed")
    assert traits.context == 4096
    assert engine.prefills


def test_completions_have_token_ids_and_log_probabilities(engine: OpenAIEngine, vllm_model: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    identity = resolve_model(str(vllm_model), role="teacher", settings=Settings())
    network = load_model(identity, dtype="float32", device="cpu")
    # The server's tokenizer: for this model, not the one that tokenizer.json describes.
    tokenizer = AutoTokenizer.from_pretrained(vllm_model)
    answers = run(engine, SamplingParameters(TEMPERATURE, 1.0, 0, 12, ("e",)))
    for key, answer in answers.items():
        assert isinstance(answer, Completion)
        assert answer.token_ids is not None
        assert answer.logprobs is not None
        assert (answer.finish_reason == "stop") == answer.text.endswith("e")
        prompt = tokenizer.encode(PROMPTS[int(key[0])], add_special_tokens=False)
        assert answer.prompt_tokens == len(prompt)
        ids = torch.tensor([[*prompt, *answer.token_ids]])
        with torch.no_grad():
            logits = network(ids).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits / TEMPERATURE, dim=-1)
        expected = expected.gather(1, ids[0, len(prompt) :, None])[:, 0]
        assert answer.logprobs == pytest.approx(expected.tolist(), abs=1e-4)
    assert {answer.finish_reason for answer in answers.values()} >= {"stop"}
    assert run(engine, SamplingParameters(TEMPERATURE, 1.0, 0, 12, ("e",))) == answers


def test_the_end_token_is_in_the_token_ids_but_not_in_the_text(engine: OpenAIEngine) -> None:
    answers = run(engine, SamplingParameters(1.5, 1.0, 0, 300), samples=24)
    ended = [
        answer
        for answer in answers.values()
        if isinstance(answer, Completion) and answer.finish_reason == "end"
    ]
    assert ended
    assert not any(answer.text.endswith("<|im_end|>") for answer in ended)


def test_requests_beyond_the_context_fail_as_such(engine: OpenAIEngine) -> None:
    sampling = SamplingParameters(TEMPERATURE, 1.0, 0, 600, ("e",))
    request = GenerationRequest("long", "word " * 4000, 0)
    answer = next(iter(engine.generate([request], sampling)))
    assert isinstance(answer, FailedRequest)
    assert answer.reason == "over_context"


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_every_question_becomes_a_trace(
    server: str, engine: OpenAIEngine, vllm_model: Path, tmp_path: Path, api: str
) -> None:
    lake = Lake(tmp_path / "lake")
    rows: list[dict[str, Any]] = [
        {
            "question_id": hash_content("question", question),
            "question": question,
            "solution": "7",
            "solution_rendered": False,
            "run_id": "test",
        }
        for question in (f"What is {index} plus 7?" for index in range(10))
    ]
    lake.table("questions").append(pl.DataFrame(rows), run_id="test")
    config = GenerateConfig(
        teacher=SERVED,
        tokenizer=str(vllm_model),
        base_url=server,
        engine_options={"api": api},
        samples=3,
        max_tokens=40,
        allow_truncated=True,
    )
    summary = generate(lake, config)
    traces = lake.table("traces").scan().collect()
    assert traces.height == traces["trace_id"].n_unique() == 30 == summary.rows_out
    assert set(traces["engine"]) == {"openai (vllm)"}
    assert set(traces["logprob_mode"]) == {"processed"}
    assert (traces["completion_token_ids"].list.len() == traces["completion_tokens"]).all()
    assert set(traces["state"]) == {"missing_close" if api == "completions" else "missing_open"}
    assert any("cannot prefill" in note for note in summary.notes) == (api == "chat")


def test_a_student_scores_on_the_server_as_in_torch(
    server: str, engine: OpenAIEngine, vllm_model: Path, tmp_path: Path
) -> None:
    lake = build_scoring_lake(tmp_path)
    options = {"backend": "openai", "base_url": server, "backend_options": {"served_model": SERVED}}
    compare_with_torch(lake, vllm_model, temperature=1.0, **options)
    row = lake.table("scores").scan().filter(pl.col("backend") == "openai").collect().to_dicts()[0]
    assert (row["dtype"], row["student_revision"], row["teacher_source"]) == ("unknown", None, "torch")


def test_a_training_reward_uses_the_student_on_the_server(
    server: str, engine: OpenAIEngine, vllm_model: Path
) -> None:
    """The student on the server and the one in torch give the same rewards, divergence included."""
    pytest.importorskip("trl")
    from rlt_data.training.rewards.rlt import RltReward
    from rlt_data.training.rewards.students import load_student, open_served_student

    tokenizer = load_tokenizer(resolve_model(str(vllm_model), role="student", settings=Settings()))
    texts = ["First add, then multiply: 3 + 4 = 7.<|end_of_explanation|>", "It is so, and it never ends"]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    sampled = [[-0.5 - 0.01 * index for index in range(len(written))] for written in ids]
    students = [
        open_served_student(str(vllm_model), 1.0, {"base_url": server, "served_model": SERVED}),
        load_student(str(vllm_model), 1.0, dtype="float32", device="cpu"),
    ]
    served, loaded = (
        RltReward(
            [student], policy_tokenizer=tokenizer, teacher_logprobs="sampled", sampling_temperature=0.7
        ).score(["What is 3 + 4?"] * 2, ["The answer is 7."] * 2, texts, ids, sampled)
        for student in students
    )
    for one, other in zip(served, loaded, strict=True):
        assert one.failure is None
        for part in ("solution_logprob_min", "kl_avg", "kl_max", "format_penalty", "reward"):
            assert one.parts[part] == pytest.approx(other.parts[part], abs=1e-3), part
