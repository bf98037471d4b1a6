"""Tokens per second of the transformers engine against `model.generate` on the same requests, in one run.

Run it as `python tests/benchmarks/bench_generate.py`. Both ways sample at temperature 0.7 with the same end
tokens, limits and rows at once; `model.generate` gets its prompts sorted by length and computes no
log-probabilities. Only tokens up to the end token count. The ways take turns; medians of three are compared.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_models import CORPUS, save_tiny_model

from rlt_data.engines import Completion, EngineOptions, GenerationRequest, SamplingParameters
from rlt_data.engines.transformers import TransformersEngine
from rlt_data.models import load_model, load_tokenizer, resolve_model
from rlt_data.settings import Settings

ROWS = 16
SAMPLES = 4
SHAPES = {
    "0.8M, 2k vocabulary": {"vocab_size": 2048, "hidden_size": 128, "num_hidden_layers": 4},
    "15M, 32k vocabulary": {"vocab_size": 32000, "hidden_size": 256, "num_hidden_layers": 8},
}


def make_prompts(count: int) -> list[str]:
    draw = random.Random(0)
    words = " ".join(CORPUS).split()
    return [" ".join(draw.choices(words, k=draw.randint(20, 120))) for _ in range(count)]


def compare(name: str, shape: dict[str, int], prompts: list[str], max_tokens: int) -> None:
    draw = random.Random(1)
    ends = sorted(draw.sample(range(shape["vocab_size"]), shape["vocab_size"] // 100))
    with tempfile.TemporaryDirectory() as folder:
        directory = save_tiny_model(
            Path(folder),
            **shape,
            intermediate_size=4 * shape["hidden_size"],
            eos_token_id=ends,
            initializer_range=0.05,
        )
        identity = resolve_model(str(directory), role="teacher", settings=Settings())
        engine = TransformersEngine(identity, EngineOptions(device="cpu", max_batch_rows=ROWS))
        model, tokenizer = load_model(identity, device="cpu"), load_tokenizer(identity)
    tokenizer.padding_side = "left"
    sampling = SamplingParameters(0.7, 1.0, 0, max_tokens)
    requests = [
        GenerationRequest(f"{number}.{sample}", prompt, number * SAMPLES + sample)
        for number, prompt in enumerate(prompts)
        for sample in range(SAMPLES)
    ]

    def run_ours() -> int:
        answers = engine.generate(requests, sampling)
        return sum(len(answer.token_ids or ()) for answer in answers if isinstance(answer, Completion))

    def run_plain() -> int:
        ordered = sorted((request.prompt for request in requests), key=len)
        written = 0
        for start in range(0, len(ordered), ROWS):
            batch = tokenizer(
                ordered[start : start + ROWS], return_tensors="pt", padding=True, add_special_tokens=False
            )
            batch.pop("token_type_ids", None)
            whole = model.generate(
                **batch, do_sample=True, temperature=0.7, top_k=0, top_p=1.0, max_new_tokens=max_tokens
            )
            for row in whole[:, batch["input_ids"].shape[1] :].tolist():
                ends_at = [index for index, token in enumerate(row) if token in engine._end_tokens]
                written += ends_at[0] + 1 if ends_at else len(row)
        return written

    ways: dict[str, Callable[[], int]] = {"ours": run_ours, "generate": run_plain}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(3):
        for way, work in ways.items():
            begin = time.perf_counter()
            tokens = work()
            rates[way].append(tokens / (time.perf_counter() - begin))
    ours, plain = (statistics.median(rates[way]) for way in ways)
    print(
        f"{name}: ours {ours:,.0f} tokens/s, model.generate {plain:,.0f} tokens/s, ratio {ours / plain:.2f}"
    )


def main() -> None:
    torch.set_num_threads(1)
    for name, shape in SHAPES.items():
        compare(name, shape, make_prompts(12), max_tokens=96)


if __name__ == "__main__":
    main()
