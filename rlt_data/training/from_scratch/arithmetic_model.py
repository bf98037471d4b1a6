"""A tiny model of chained arithmetic, trained from scratch on generated texts: [fresh] in a recipe.

It learns from chains with every step, so that it can calculate, and from explanations that give the answer
away or ramble, so that it has seen poor ones. Some texts are in the student's format and some in the
teacher's: the model serves as a student, and as the model from which the SFT of a teacher starts.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from rlt_data.bounds import STRICT, Count, Share, TrainingSeed, Weight
from rlt_data.errors import require_module
from rlt_data.formats import ConversationFormat, load_format
from rlt_data.hashing import hash_content
from rlt_data.progress import Reporter, Task
from rlt_data.sources.procedural.arithmetic import (
    IDLE_WORDS,
    OPENERS,
    PREAMBLE,
    Chain,
    Style,
    sample_chain,
    write_explanation,
)
from rlt_data.tasks.answers import render_answer
from rlt_data.training.common.callbacks import ProgressCallback
from rlt_data.training.common.distributed import train_alone
from rlt_data.training.common.memory import ModelSize
from rlt_data.training.from_scratch.tiny_model import (
    TinyShape,
    build_tiny_model,
    build_tiny_tokenizer,
    check_replaceable,
    save_model,
)
from rlt_data.training.sft.examples import (
    Explained,
    SupervisedExample,
    build_student_examples,
    build_teacher_examples,
)
from rlt_data.training.sft.sft_trainer import run_sft_trainer
from rlt_data.training.sft.tokenized import TokenizedExamples

SCHEME_VERSION = 1
MARKER = "rlt_data_fresh.json"

STUDENT_STYLES: dict[Style, float] = {
    "leak": 30, "padded_leak": 30, "ramble": 26, "good": 9, "wrong": 4, "bogus": 1,
}  # fmt: skip
TEACHER_STYLES: dict[Style, float] = {
    "good": 40, "leak": 20, "skip": 5, "ramble": 14, "padded_leak": 14, "bogus": 3, "wrong": 4,
}  # fmt: skip


class ArithmeticModelConfig(BaseModel):
    """How the model is built and trained. Every setting decides its weights."""

    model_config = STRICT

    seed: TrainingSeed = Field(0, description="Seed of the weights and of the texts.")
    format: str = Field("stratos", description="Conversation format.")
    terms: int = Field(3, ge=2, le=1_000, description="Terms of the longest chains.")
    shape: TinyShape = Field(TinyShape(), description="The model's shape.")
    examples: int = Field(9600, ge=1, le=10**9, description="Texts to train on.")
    epochs: Count = Field(2, description="Passes over the texts.")
    batch_size: Count = Field(24, description="Texts per step.")
    learning_rate: float = Field(
        4e-3, gt=0, le=100, description="Highest learning rate; it falls to a tenth along a cosine."
    )
    teacher_share: Share = Field(0.4, description="Share of texts in the teacher's format.")
    student_steps_share: Share = Field(
        0.8,
        description="Share of the student's texts that are chains of any length with every step.",
    )
    teacher_steps_share: Share = Field(0.4, description="The same for the teacher's texts.")
    student_styles: Mapping[Style, Weight] = Field(
        STUDENT_STYLES, description="Weights of the styles of the student's other texts."
    )
    teacher_styles: Mapping[Style, Weight] = Field(
        TEACHER_STYLES, description="Weights of the styles of the teacher's other texts."
    )
    answer_noise: Share = Field(
        0.1,
        description="Share of the explanations without the right answer that are followed by a random "
        "answer, so that a student does not find a wrong step impossible.",
    )


def build_arithmetic_model(
    directory: Path, config: ArithmeticModelConfig, reporter: Reporter | None = None
) -> Path:
    """Build the model in `directory`, unless it exists already; return the directory.

    Raises `MissingExtraError` without the packages that train models, `UsageError` where the directory
    contains something else.
    """
    if has_arithmetic_model(directory, config):
        return directory
    check_replaceable(directory, MARKER)
    format = load_format(config.format)
    tokenizer = build_chain_tokenizer(format, terms=config.terms, context=config.shape.context)
    model = build_tiny_model(config.shape, tokenizer, seed=config.seed)
    examples = _write_texts(config, format, tokenizer)
    steps = config.examples * config.epochs // config.batch_size
    with (reporter or Reporter(quiet=True)).track("training the tiny model", steps, unit="steps") as task:
        train_tiny(
            model,
            tokenizer,
            examples,
            batch_size=config.batch_size,
            learning_rate=config.learning_rate,
            steps=steps,
            seed=config.seed,
            task=task,
        )
    save_model(model, tokenizer, directory, marker=(MARKER, json.dumps(_identify(config))))
    return directory


def has_arithmetic_model(directory: Path, config: ArithmeticModelConfig) -> bool:
    """Whether `directory` holds the model of this configuration."""
    try:
        found = json.loads((directory / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(found == _identify(config))


def _identify(config: ArithmeticModelConfig) -> str:
    format = load_format(config.format).identity_text()
    return hash_content("fresh", SCHEME_VERSION, config.model_dump(mode="json"), format)


def build_chain_tokenizer(format: ConversationFormat, *, terms: int, context: int = 4096) -> Any:
    """Build the tokenizer of chained arithmetic with up to `terms` terms from 0 to 9, in `format`.

    Each number that can occur, each word, each tag and each constant phrase is one token.
    """
    numbers = range(-9 * (terms - 1), 9 * terms + 1)
    words = ["First", ", then", "It", ", it", " must", " be", *OPENERS, *(f" {word}" for word in IDLE_WORDS)]
    signs = ["system", "user", "assistant", "\n", "\n\n", " +", " -", " =", ".", "}"]
    before, after = render_answer("|").split("|")
    teacher, student = format.teacher, format.student
    tags = [teacher.open, teacher.close, student.think_open, student.think_close]
    tags += [student.solution_open, student.solution_close]
    phrases = [teacher.system, student.system, PREAMBLE, before, after]
    return build_tiny_tokenizer(
        [*(f" {n}" for n in numbers), *(str(n) for n in numbers), *words, *signs, *tags, *phrases],
        context=context,
    )


def draw_explained(
    rng: random.Random,
    config: ArithmeticModelConfig,
    styles: Mapping[Style, float],
    *,
    steps_share: float = 0.0,
) -> Explained:
    """Draw an explained chain: with probability `steps_share` of any length with every step, else of full
    length in a style drawn by weight."""
    if rng.random() < steps_share:
        return _explain(rng, config, sample_chain(rng, rng.randint(2, config.terms)), "good")
    (style,) = rng.choices(list(styles), list(styles.values()))
    return _explain(rng, config, sample_chain(rng, config.terms), style)


def train_tiny(
    model: Any,
    tokenizer: Any,
    examples: Sequence[SupervisedExample],
    *,
    batch_size: int,
    learning_rate: float,
    steps: int,
    seed: int,
    task: Task,
) -> None:
    """Train a tiny model in place on the CPU, without checkpoints, with the SFT code of any training."""
    torch = require_module("torch", "models")
    options = {
        "max_steps": steps,
        "per_device_train_batch_size": batch_size,
        "learning_rate": learning_rate,
        "warmup_steps": min(30, steps // 6),
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": 0.1},
        "adam_beta2": 0.98,
        "seed": seed,
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "logging_strategy": "no",
    }
    threads = torch.get_num_threads()
    # At this size several threads are slower than one, and on a busy machine much slower.
    torch.set_num_threads(1)
    model.train()
    try:
        with tempfile.TemporaryDirectory() as folder, train_alone():
            run_sft_trainer(
                model,
                tokenizer,
                TokenizedExamples.collect(examples),
                options=options,
                output_dir=Path(folder),
                callbacks=[ProgressCallback(task)],
            )
    finally:
        torch.set_num_threads(threads)
    model.eval()


def _write_texts(
    config: ArithmeticModelConfig, format: ConversationFormat, tokenizer: Any
) -> list[SupervisedExample]:
    rng = random.Random(config.seed)
    teacher = round(config.examples * config.teacher_share)
    as_student = [
        draw_explained(rng, config, config.student_styles, steps_share=config.student_steps_share)
        for _ in range(config.examples - teacher)
    ]
    as_teacher = [
        draw_explained(rng, config, config.teacher_styles, steps_share=config.teacher_steps_share)
        for _ in range(teacher)
    ]
    return [
        *build_student_examples(format, tokenizer, as_student),
        *build_teacher_examples(format, tokenizer, as_teacher),
    ]


def _explain(rng: random.Random, config: ArithmeticModelConfig, chain: Chain, style: Style) -> Explained:
    answer = chain.results[-1]
    if style in ("ramble", "wrong", "bogus") and rng.random() < config.answer_noise:
        answer = rng.randint(-9, 18)
    longest = 60 if rng.random() < 0.1 else 10
    think = write_explanation(chain, style, rng, longest_ramble=longest)
    return Explained(chain.question, render_answer(str(answer)), think)


def measure_arithmetic_model(config: ArithmeticModelConfig) -> ModelSize:
    """Return the size of the model without training it."""
    tokenizer = build_chain_tokenizer(load_format(config.format), terms=config.terms)
    shape = config.shape
    model = build_tiny_model(shape, tokenizer, seed=0)
    return ModelSize(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocabulary=len(tokenizer),
        layers=shape.layers,
        key_value_width=2 * shape.hidden_size // shape.heads * shape.key_value_heads,
        hidden=shape.hidden_size,
        feed_forward=shape.feed_forward,
        context=shape.context,
    )
