"""Score traces once with tiny random models, then sweep the settings of the reward without a model."""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl

from rlt_data import Lake
from rlt_data.reward.derive import derive_reward
from rlt_data.reward.settings import RewardSettings
from rlt_data.stages.generate import GenerateConfig, generate
from rlt_data.stages.ingest import IngestConfig, ingest
from rlt_data.stages.score import ScoreConfig, score
from rlt_data.training.from_scratch.tiny_model import (
    TinyShape,
    build_tiny_model,
    build_tiny_tokenizer,
    save_model,
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake")
        teacher, student = build_models(Path(folder))

        problems = Path(folder) / "problems.jsonl"
        problems.write_text('{"question": "What is 2 + 3?", "solution": "2 + 3 = 5."}\n', encoding="utf-8")
        ingest(lake, IngestConfig(source=str(problems)))
        sampling = {"samples": 4, "max_tokens": 12, "allow_truncated": True, "engine": "transformers"}
        generate(lake, GenerateConfig(teacher=(str(teacher),), format="r1", **sampling))
        score(lake, ScoreConfig(students=(str(student),), exact=True))

        scores = lake.table("scores").scan()
        for estimator in ("k1", "k3", "full"):
            for weight in (0.0, 1.0, 3.0):
                settings = RewardSettings(estimator=estimator, lambda_kl=weight)
                rewards = scores.select(derive_reward(settings)[-1].alias("reward")).collect()
                mean = rewards.select(pl.col("reward").mean()).item()
                print(f"estimator {estimator:4}  lambda {weight:.0f}  mean reward {mean:8.3f}")


def build_models(folder: Path) -> tuple[Path, Path]:
    """Make two models with random weights and one tokenizer: the divergence compares token by token."""
    shape = TinyShape()
    tokenizer = build_tiny_tokenizer(["<think>", "</think>"], context=shape.context)
    for seed, name in enumerate(("teacher", "student")):
        save_model(build_tiny_model(shape, tokenizer, seed=seed), tokenizer, folder / name)
    return folder / "teacher", folder / "student"


if __name__ == "__main__":
    main()
