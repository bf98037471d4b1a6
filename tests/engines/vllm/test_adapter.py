"""LoRA adapters in the real vLLM on this machine's device; skipped where it cannot run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlt_data.engines import Completion, EngineOptions, GenerationRequest, SamplingParameters
from rlt_data.engines.vllm.engine import VllmEngine
from rlt_data.models import load_model, load_tokenizer, resolve_model
from rlt_data.settings import Settings

pytestmark = [pytest.mark.vllm, pytest.mark.slow]

PROMPT = "<|im_start|>user\nHow many dollars are 3 eggs at $2?<|im_end|>\n"
TEMPERATURE = 0.7
RANK = 5


@pytest.fixture(scope="module")
def adapter(vllm_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of a rank that vLLM has no buffers for, with weights that change the model."""
    peft = pytest.importorskip("peft")
    base = load_model(resolve_model(str(vllm_model), role="teacher", settings=Settings()), dtype="float32")
    modules = ["q_proj", "v_proj", "down_proj"]
    config = peft.LoraConfig(r=RANK, lora_alpha=20, target_modules=modules, init_lora_weights=False)
    directory = tmp_path_factory.mktemp("models") / "adapter"
    peft.get_peft_model(base, config).save_pretrained(directory)
    settings = json.loads((directory / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(vllm_model)
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    return directory


def test_an_adapter_generates_what_the_merged_model_does(adapter: Path, vllm_model: Path) -> None:
    import torch

    identity = resolve_model(str(adapter), role="teacher", settings=Settings())
    base = resolve_model(str(vllm_model), role="teacher", settings=Settings())
    assert identity.base is not None
    requests = [GenerationRequest(str(index), PROMPT, index) for index in range(6)]
    options = EngineOptions(max_batch_rows=4, extra={"max_model_len": 256, "kv_cache_memory_bytes": 1 << 26})
    engine = VllmEngine(identity, options)
    try:
        answers = list(engine.generate(requests, SamplingParameters(TEMPERATURE, 1.0, 0, 12)))
    finally:
        engine.close()
    prompt = load_tokenizer(identity).encode(PROMPT, add_special_tokens=False)
    merged, plain = (load_model(model, dtype="float32", device="cpu") for model in (identity, base))
    assert len(answers) == 6
    for answer in answers:
        assert isinstance(answer, Completion)
        assert answer.token_ids is not None
        ids = torch.tensor([[*prompt, *answer.token_ids]])
        for network, same in ((merged, True), (plain, False)):
            with torch.no_grad():
                logits = network(ids).logits[0, len(prompt) - 1 : -1]
            values = torch.log_softmax(logits / TEMPERATURE, dim=-1).gather(1, ids[0, len(prompt) :, None])
            assert (answer.logprobs == pytest.approx(values[:, 0].tolist(), abs=1e-3)) == same


SCRIPT = """
import json, sys
from rlt_data.engines.vllm.adapter import choose_adapter_options
from rlt_data.engines.vllm.options import RefusedError
for directory, options in json.loads(sys.argv[1]):
    try:
        print("@" + json.dumps(choose_adapter_options(directory, options)["max_lora_rank"]))
    except RefusedError as error:
        print("@" + json.dumps(error.what))
"""


def test_adapters_that_vllm_cannot_apply_are_refused_before_it_starts(
    vllm_model: Path, tmp_path: Path
) -> None:
    cases: list[tuple[dict[str, Any], dict[str, Any], Any]] = [
        ({"r": 1}, {}, 1),
        ({"r": 5}, {}, 8),
        ({"r": 64}, {"max_lora_rank": 128}, 128),
        ({"r": 64}, {"max_lora_rank": 16}, "rank 64 is greater than max_lora_rank 16"),
        ({"r": 1000}, {}, "rank 1000 is greater than max_lora_rank 512"),
        ({"use_dora": True}, {}, "DoRA"),
        ({"bias": "all"}, {}, "bias is not supported"),
        ({"modules_to_save": ["lm_head"]}, {}, "lm_head"),
        ({"alpha_pattern": {"q_proj": 3}}, {}, "apply alpha_pattern wrongly"),
        ({"rank_pattern": {"q_proj": 3}}, {}, "apply rank_pattern wrongly"),
        ({"peft_type": "IA3"}, {}, "not a LoRA adapter"),
    ]
    cases = []
    for index, (settings, options, _) in enumerate(cases):
        directory = tmp_path / str(index)
        directory.mkdir()
        whole = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], **settings}
        (directory / "adapter_config.json").write_text(json.dumps(whole))
        cases.append((str(directory), options))
    command = [sys.executable, "-c", SCRIPT, json.dumps(cases)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = [json.loads(line[1:]) for line in done.stdout.splitlines() if line.startswith("@")]
    for (settings, _, expected), result in zip(cases, found, strict=True):
        assert result == expected if isinstance(expected, int) else expected in str(result), settings
