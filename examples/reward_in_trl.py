"""Use the RLT reward in your own training script: it is an ordinary reward function of TRL's GRPOTrainer."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from rlt_data.formats import load_format, render_teacher_prompt
from rlt_data.models import load_tokenizer, resolve_model
from rlt_data.reward.settings import RewardSettings
from rlt_data.sources.procedural.arithmetic import sample_chain
from rlt_data.tasks.answers import render_answer
from rlt_data.training.from_scratch.arithmetic_model import build_chain_tokenizer
from rlt_data.training.from_scratch.tiny_model import TinyShape, build_tiny_model, save_model
from rlt_data.training.rewards.rlt import RltReward


def main() -> None:
    format = load_format("stratos")
    with tempfile.TemporaryDirectory() as folder:
        # Any two models with the same tokenizer work; these are tiny and have random weights.
        for seed, name in enumerate(("teacher", "student")):
            new_tokenizer = build_chain_tokenizer(format, terms=3)
            shape = TinyShape(hidden_size=32, heads=2, key_value_heads=2, feed_forward=48)
            save_model(build_tiny_model(shape, new_tokenizer, seed=seed), new_tokenizer, Path(folder) / name)
        teacher, student = str(Path(folder) / "teacher"), str(Path(folder) / "student")
        tokenizer = load_tokenizer(resolve_model(teacher, role="teacher"))

        # The reward needs the columns `question` and `solution` beside the prompt.
        rows = []
        for seed in range(4):
            chain = sample_chain(random.Random(seed), terms=3)
            solution = render_answer(str(chain.results[-1]))
            prompt = render_teacher_prompt(format, tokenizer, chain.question, solution).text
            rows.append({"prompt": prompt, "question": chain.question, "solution": solution})

        reward = RltReward([student], policy_tokenizer=tokenizer, settings=RewardSettings(lambda_kl=3.0))
        trainer = GRPOTrainer(
            teacher,
            reward_funcs=[reward],
            args=GRPOConfig(
                output_dir=folder,
                max_steps=2,
                per_device_train_batch_size=8,
                num_generations=4,
                max_completion_length=12,
                temperature=0.7,
                logging_steps=1,
                report_to="none",
                use_cpu=True,
                bf16=False,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        reward.follow(trainer)
        trainer.train()

        logged = [entry for entry in trainer.state.log_history if "reward" in entry]
        for entry in logged:
            print(f"step {entry['step']}: reward {float(entry['reward']):.2f}")
        scored = reward.last[0]
        print({name: round(scored.parts[name], 2) for name in ("r_ss", "r_kl", "format_penalty", "reward")})


if __name__ == "__main__":
    main()
