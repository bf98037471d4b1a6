"""The transformers engine with a real tiny model: what an answer depends on, and how it ends."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import build_tokenizer, save_tiny_model
from transformers import Gemma2Config, Gemma2ForCausalLM, MambaConfig, MambaForCausalLM

from rlt_data.engines import (
    Completion,
    EngineOptions,
    FailedRequest,
    GenerationRequest,
    SamplingParameters,
    derive_sample_seed,
    open_engine,
)
from rlt_data.engines.transformers import TransformersEngine
from rlt_data.errors import ModelError, UsageError
from rlt_data.models import load_model, load_tokenizer, resolve_model
from rlt_data.settings import Settings

PROMPTS = [
    "She sold 12 eggs",
    "First add, then multiply: 3 + 4 = 7, and 7 * 2 = 14. The answer is",
    "<|im_start|>user\nHow many dollars?<|im_end|>\n<|im_start|>assistant\n",
    "a",
    "every day for $2, so she had 24 dollars at the market. " * 6,
]
SAMPLING = SamplingParameters(temperature=0.7, top_p=1.0, top_k=0, max_tokens=40)


def open_tiny(directory: Path, **options: Any) -> TransformersEngine:
    identity = resolve_model(str(directory), role="teacher", settings=Settings())
    engine = open_engine("transformers", identity, EngineOptions(device="cpu", **options))
    assert isinstance(engine, TransformersEngine)
    return engine


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Iterator[TransformersEngine]:
    opened = open_tiny(tiny_model, max_batch_rows=8)
    yield opened
    opened.close()


def make_requests(samples: int = 5) -> list[GenerationRequest]:
    return [
        GenerationRequest(f"{number}.{sample}", prompt, derive_sample_seed(7, str(number), sample))
        for number, prompt in enumerate(PROMPTS)
        for sample in range(samples)
    ]


def run(
    engine: TransformersEngine, requests: Sequence[GenerationRequest], sampling: SamplingParameters = SAMPLING
) -> dict[str, Completion]:
    answers = list(engine.generate(iter(requests), sampling))
    completions = {answer.key: answer for answer in answers if isinstance(answer, Completion)}
    assert len(answers) == len(completions) == len(requests)
    return completions


@pytest.mark.parametrize("options", [{"max_batch_rows": 1}, {"max_batch_rows": 3}, {"max_batch_tokens": 300}])
def test_answer_does_not_depend_on_batching_or_order(
    engine: TransformersEngine, tiny_model: Path, options: dict[str, int]
) -> None:
    requests = make_requests(3)
    expected = run(engine, requests)
    random.Random(0).shuffle(requests)
    found = run(open_tiny(tiny_model, **options), requests)
    for key, completion in expected.items():
        assert found[key].token_ids == completion.token_ids
        assert found[key].text == completion.text
        assert found[key].finish_reason == completion.finish_reason
        assert found[key].logprobs == pytest.approx(completion.logprobs, abs=1e-5)


def test_draws_depend_on_the_seed(engine: TransformersEngine) -> None:
    prompt = PROMPTS[0]
    requests = [GenerationRequest(str(index), prompt, seed) for index, seed in enumerate((1, 1, 2))]
    answers = run(engine, requests)
    assert answers["0"].token_ids == answers["1"].token_ids
    assert answers["0"].token_ids != answers["2"].token_ids


def check_logprobs(directory: Path, answers: dict[str, Completion], temperature: float) -> None:
    identity = resolve_model(str(directory), role="teacher", settings=Settings())
    model = load_model(identity, dtype="float32", device="cpu", attention="eager").double()
    tokenizer = load_tokenizer(identity)
    prompts = {request.key: request.prompt for request in make_requests()}
    for key, answer in answers.items():
        prompt = tokenizer(prompts[key], add_special_tokens=False)["input_ids"]
        assert answer.prompt_tokens == len(prompt)
        ids = torch.tensor([[*prompt, *answer.token_ids]])
        with torch.inference_mode():
            logits = model(ids).logits[0, len(prompt) - 1 : -1] / temperature
        expected = logits.log_softmax(-1).gather(1, torch.tensor(answer.token_ids).unsqueeze(1)).squeeze(1)
        assert answer.logprobs == pytest.approx(expected.tolist(), abs=2e-5)


def test_logprobs_equal_a_plain_float64_computation(engine: TransformersEngine, tiny_model: Path) -> None:
    check_logprobs(tiny_model, run(engine, make_requests()), 0.7)


@pytest.mark.parametrize("kinds", [["sliding_attention"] * 2, ["full_attention", "sliding_attention"]])
def test_sliding_window_layers(tmp_path: Path, kinds: list[str]) -> None:
    shape = {"use_sliding_window": True, "sliding_window": 8, "layer_types": kinds}
    directory = save_tiny_model(tmp_path / "sliding", **shape)
    check_logprobs(directory, run(open_tiny(directory, max_batch_rows=4), make_requests()), 0.7)


def test_a_model_without_a_key_value_cache_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "recurrent")
    config = MambaConfig(vocab_size=400, hidden_size=16, num_hidden_layers=1, num_attention_heads=1)
    MambaForCausalLM(config).save_pretrained(tmp_path / "recurrent")
    with pytest.raises(ModelError, match="has a recurrent state"):
        open_tiny(tmp_path / "recurrent")


def test_softcapped_attention(tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        max_position_embeddings=512,
        sliding_window=8,
        attn_logit_softcapping=0.5,
        initializer_range=0.15,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    check_logprobs(tmp_path, run(open_tiny(tmp_path, max_batch_rows=4), make_requests(2)), 0.7)


def test_greedy_equals_transformers_generate(engine: TransformersEngine, tiny_model: Path) -> None:
    identity = resolve_model(str(tiny_model), role="teacher", settings=Settings())
    model, tokenizer = load_model(identity, device="cpu"), load_tokenizer(identity)
    answers = run(engine, make_requests(1), SamplingParameters(0.0, 1.0, 0, 24))
    for request in make_requests(1):
        ids = torch.tensor([tokenizer(request.prompt, add_special_tokens=False)["input_ids"]])
        with torch.inference_mode():
            whole = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24
            )
        assert answers[request.key].token_ids == tuple(whole[0, ids.shape[1] :].tolist())


def test_completions_match_their_finish_reason(engine: TransformersEngine, tiny_model: Path) -> None:
    tokenizer = load_tokenizer(resolve_model(str(tiny_model), role="teacher", settings=Settings()))
    stop = (" s", "e ")
    answers = run(engine, make_requests(40), SamplingParameters(1.0, 1.0, 0, 60, stop))
    seen = dict.fromkeys(("stop", "end", "length"), 0)
    for answer in answers.values():
        seen[answer.finish_reason] += 1
        written = list(answer.token_ids)
        assert answer.logprobs is not None
        assert len(answer.logprobs) == len(written)
        if answer.finish_reason == "end":
            assert written.pop() == tokenizer.eos_token_id
        if answer.finish_reason == "length":
            assert len(written) == 60
        decoded = tokenizer.decode(written, skip_special_tokens=False)
        if answer.finish_reason == "stop":
            assert answer.text.endswith(stop)
            assert not any(text in answer.text[:-1] for text in stop)
            assert decoded.startswith(answer.text)
            shorter = tokenizer.decode(written[:-1], skip_special_tokens=False)
            assert not any(text in shorter for text in stop)
        else:
            assert answer.text == decoded
            assert not any(text in answer.text for text in stop)
    assert min(seen.values()) > 0


def test_only_requests_beyond_the_context_fail(engine: TransformersEngine) -> None:
    requests = [
        GenerationRequest("long", "word " * 1000, 0),
        GenerationRequest("empty", "", 0),
        GenerationRequest("short", "She", 0),
    ]
    answers = {answer.key: answer for answer in engine.generate(requests, SAMPLING)}
    long, empty = answers["long"], answers["empty"]
    assert isinstance(answers["short"], Completion)
    assert isinstance(empty, FailedRequest)
    assert empty.reason == "empty_prompt"
    assert isinstance(long, FailedRequest)
    assert long.reason == "over_context"
    assert "context of 1024" in long.detail


def test_a_completion_gets_the_room_that_its_prompt_leaves(tmp_path: Path) -> None:
    small = open_tiny(save_tiny_model(tmp_path / "small", max_position_embeddings=64))
    answers = run(small, make_requests(8)[:32], SamplingParameters(1.0, 1.0, 0, 4096))
    ended = [answer for answer in answers.values() if answer.finish_reason == "length"]
    assert ended
    for answer in ended:
        assert answer.token_ids is not None
        assert answer.prompt_tokens is not None
        assert answer.prompt_tokens + len(answer.token_ids) == 64
    # The same samples as with the context of a longer model, up to where they end.
    fitted = run(small, make_requests(8)[:8], SamplingParameters(1.0, 1.0, 0, 10))
    for key, answer in fitted.items():
        assert answers[key].token_ids is not None
        assert answer.token_ids is not None
        assert answers[key].token_ids[: len(answer.token_ids)] == answer.token_ids


def test_requests_are_read_lazily_and_answered_as_they_finish(engine: TransformersEngine) -> None:
    given = 0

    def give() -> Iterator[GenerationRequest]:
        nonlocal given
        for number in range(20_000):
            given += 1
            yield GenerationRequest(str(number), "a", number)

    answers = engine.generate(give(), SamplingParameters(1.0, 1.0, 0, 2))
    next(answers)
    assert given < 20_000


def test_unknown_option_and_device_are_refused(tiny_model: Path) -> None:
    with pytest.raises(UsageError, match="no option 'tensor_parallel_size'"):
        open_tiny(tiny_model, extra={"tensor_parallel_size": 2})
    identity = resolve_model(str(tiny_model), role="teacher", settings=Settings())
    with pytest.raises(UsageError, match="not available"):
        open_engine("transformers", identity, EngineOptions(device="tpu"))


def test_missing_packages_name_the_extra(tiny_model: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from rlt_data.engines import open_engine\n"
        "from rlt_data.errors import MissingExtraError\n"
        "from rlt_data.models import resolve_model\n"
        f"identity = resolve_model({str(tiny_model)!r}, role='teacher')\n"
        "try:\n"
        "    open_engine('transformers', identity)\n"
        "except MissingExtraError as error:\n"
        "    print(error.remedy)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "pip install 'rlt-data[models]'"
