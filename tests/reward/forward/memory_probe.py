"""Measure in a process of its own how much the memory peak rises while one long text is scored.

Usage: memory_probe.py MODE:TOKENS:VOCABULARY[:LIMIT] ... Each probe runs in a fork of its own, since what one
frees the next would use, and prints MiB. With a limit (MiB), address space beyond what is in use is capped at
it, many texts are scored in passes too large for it, and the texts done and the pass that fitted are printed.
"""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlt_data.reward.forward.head import score_targets
from rlt_data.reward.forward.memory import Sizes, TileSize
from rlt_data.reward.scoring.scoring_model import ModelRunner, ScoredRows, ScoringModel
from rlt_data.reward.scoring.texts import ScoringText


def read_status(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def build_runner(mode: Any, vocabulary: int, pack_tokens: int, feed_forward: int) -> ModelRunner:
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=feed_forward,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    )
    scoring = ScoringModel("probe", Qwen2ForCausalLM(config).eval(), None)
    return ModelRunner(scoring, Sizes(pack_tokens, 1, TileSize(256, 2048)), mode=mode)


def make_text(tokens: int, vocabulary: int, seed: int) -> ScoringText:
    ids = [(7 * i + seed) % vocabulary for i in range(tokens)]
    return ScoringText(ids, tokens, range(10, tokens - 5), range(tokens - 5, tokens), [], [])


def run(runner: ModelRunner, texts: list[ScoringText]) -> int:
    done: list[int] = []

    def consume(rows: ScoredRows) -> None:
        score_targets(rows.hidden, runner.read_head(), rows.targets, runner.tile)
        done.extend(index for index, _ in rows.text_rows)

    runner.score(texts, consume)
    return len(set(done))


def probe(mode: str, tokens: int, vocabulary: int, limit: int | None = None) -> str:
    if limit is not None:
        runner = build_runner(mode, vocabulary, 30_000, 4096)
        run(build_runner(mode, vocabulary, 64, 4096), [make_text(64, vocabulary, 0)])
        allowed = int((read_status("VmSize") + limit) * 2**20)
        resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
        return (
            f"{run(runner, [make_text(tokens, vocabulary, seed) for seed in range(40)])} {runner.pack_tokens}"
        )
    runner = build_runner(mode, vocabulary, 1024, 64)
    run(runner, [make_text(64, vocabulary, 0)])
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = read_status("VmRSS")
    run(runner, [make_text(tokens, vocabulary, 0)])
    return str(read_status("VmHWM") - before)


def main() -> None:
    torch.set_num_threads(1)
    for argument in sys.argv[1:]:
        mode, *numbers = argument.split(":")
        child = os.fork()
        if not child:
            print(probe(mode, *map(int, numbers)), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"{argument} failed")


if __name__ == "__main__":
    main()
