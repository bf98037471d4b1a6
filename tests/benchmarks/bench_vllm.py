"""Throughput of `generate --engine vllm`, tables included, against `vllm.LLM.generate` on the same requests.

Run it as `python tests/benchmarks/bench_vllm.py [ROUNDS [QUESTIONS [MODEL]]]`. Both ways send the same
rendered prompts with the same seeds and sampling to engines with the same options, take turns, and count
from a started engine to the last completion; ours also renders, parses and commits every trace. The median
of the rounds is compared. Without MODEL, a tiny random one is made.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

SAMPLES = 4
MAX_TOKENS = 160
OPTIONS = {"max_model_len": 1024, "block_size": 32}
ROWS = 64


def write_lake(folder: Path, questions: int) -> Any:
    import polars as pl

    from rlt_data.hashing import hash_content
    from rlt_data.lake import Lake

    lake = Lake(folder)
    rows = [
        {
            "question_id": hash_content("question", number),
            "question": f"She sold {number} eggs every day for ${number % 7 + 1}. How many dollars had she?",
            "solution": f"{number} * {number % 7 + 1} = {number * (number % 7 + 1)}",
            "solution_rendered": False,
            "run_id": "benchmark",
        }
        for number in range(questions)
    ]
    lake.table("questions").append(pl.DataFrame(rows), run_id="benchmark")
    return lake


def run_ours(folder: Path, model: str, questions: int) -> dict[str, float]:
    """Run the stage in a new lake; the engine's start does not count."""
    from rlt_data.stages.generate import GenerateConfig, generate

    lake = write_lake(folder, questions)
    config = GenerateConfig(
        teacher=model,
        engine="vllm",
        samples=SAMPLES,
        max_tokens=MAX_TOKENS,
        max_batch_rows=ROWS,
        engine_options=OPTIONS,
        allow_truncated=True,
    )
    begin = time.time()
    summary = generate(lake, config)
    last = max(version.timestamp for version in lake.table("traces").versions()).timestamp()
    seconds = last - begin - summary.extra["engine_start_seconds"]
    return {"tokens": summary.tokens, "rows": summary.rows_out, "seconds": seconds}


def run_direct(folder: Path, model: str, questions: int) -> dict[str, float]:
    """Call `LLM.generate` with the requests that the stage would send."""
    from vllm import LLM, SamplingParams

    from rlt_data.engines import derive_sample_seed
    from rlt_data.engines.vllm.options import choose_cpu_defaults
    from rlt_data.formats import load_format, render_teacher_prompt
    from rlt_data.models import load_tokenizer, resolve_model

    lake = write_lake(folder, questions)
    identity = resolve_model(model, role="teacher")
    tokenizer, format = load_tokenizer(identity), load_format("stratos")
    prompts, parameters = [], []
    for row in lake.table("questions").scan().collect().to_dicts():
        prompt = render_teacher_prompt(format, tokenizer, row["question"], row["solution"]).text
        ids = tokenizer.encode(prompt, add_special_tokens=False)
        for sample in range(SAMPLES):
            prompts.append({"prompt_token_ids": ids})
            parameters.append(
                SamplingParams(
                    temperature=0.7,
                    max_tokens=MAX_TOKENS,
                    seed=derive_sample_seed(0, row["question_id"], sample),
                    stop=[format.teacher.close],
                    include_stop_str_in_output=True,
                    skip_special_tokens=False,
                    logprobs=0,
                    flat_logprobs=True,
                )
            )
    llm = LLM(
        model,
        dtype="float32",
        max_num_seqs=ROWS,
        logprobs_mode="processed_logprobs",
        **choose_cpu_defaults(OPTIONS, OPTIONS["max_model_len"]),
        **OPTIONS,
    )
    begin = time.perf_counter()
    outputs = llm.generate(prompts, parameters, use_tqdm=False)
    seconds = time.perf_counter() - begin
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    return {"tokens": tokens, "rows": len(outputs), "seconds": seconds}


WAYS = {"ours": run_ours, "direct": run_direct}


def measure(way: str, model: str, questions: int) -> dict[str, float]:
    """Run one way in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--way", way, folder, model, str(questions)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    # vLLM writes to standard output as well.
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith('{"tokens"')))
    print(
        f"{way}: {found['rows']} rows, {found['tokens']:,} tokens in {found['seconds']:.1f} s: "
        f"{found['rows'] / found['seconds']:.1f} rows/s, {found['tokens'] / found['seconds']:,.0f} tokens/s",
        flush=True,
    )
    return dict(found)


def compare(model: str, rounds: int, questions: int) -> None:
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    for number in range(rounds):
        for way in sorted(WAYS, reverse=bool(number % 2)):
            found = measure(way, model, questions)
            rates[way].append(found["tokens"] / found["seconds"])
    ours, direct = (statistics.median(rates[way]) for way in ("ours", "direct"))
    print(f"ours {ours:,.0f} tokens/s, LLM.generate {direct:,.0f} tokens/s, ratio {ours / direct:.3f}")


def main() -> None:
    if sys.argv[1:2] == ["--way"]:
        way, folder, model, questions = sys.argv[2:6]
        print(json.dumps(WAYS[way](Path(folder) / "lake", model, int(questions))))
        return
    from rlt_data.engines.vllm.availability import find_vllm

    if find_vllm() is None:
        print("skipped: vLLM is not installed")
        return
    rounds, questions = (int(value) for value in (*sys.argv[1:3], *("3", "100")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder:
        from tiny_models import save_tiny_model

        shape = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
        model = sys.argv[3] if len(sys.argv) > 3 else str(save_tiny_model(Path(folder), **shape))
        compare(model, rounds, questions)


if __name__ == "__main__":
    main()
