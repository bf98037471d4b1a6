"""The demonstration's models: a tiny teacher and a tiny student, made on this machine in under a minute.

Both read chained arithmetic (`rlt_data.sources.arithmetic`). The student is trained on short chains with
every step, so that it knows the facts, and on a mess of leaks and idle words, so that it has seen what
poor explanations look like; it cannot work a chain out in one go. The teacher is that student trained a
little further on explanations of mixed quality: about half of what it writes is good.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from rlt_data import __version__
from rlt_data.errors import require_module
from rlt_data.formats import ConversationFormat, load_format
from rlt_data.hashing import hash_content
from rlt_data.models.tiny import TinyShape, build_tiny_model, build_tiny_tokenizer, save_model
from rlt_data.progress import Reporter
from rlt_data.sources.arithmetic import (
    IDLE_WORDS,
    OPENERS,
    PREAMBLE,
    Chain,
    Style,
    sample_chain,
    write_explanation,
)
from rlt_data.tasks.answers import render_answer
from rlt_data.training.callbacks import ProgressCallback
from rlt_data.training.examples import (
    Explained,
    SupervisedExample,
    build_student_examples,
    build_teacher_examples,
    check_example,
)
from rlt_data.training.sft import run_supervised

SCHEME_VERSION = 1
IDENTITY_FILE = "rlt_data_demo.json"

# Shares in per cent of the explanations of long chains.
STUDENT_STYLES: dict[Style, int] = {
    "leak": 30, "padded_leak": 30, "ramble": 26, "good": 9, "wrong": 4, "bogus": 1,
}  # fmt: skip
TEACHER_STYLES: dict[Style, int] = {
    "good": 40, "leak": 20, "skip": 5, "ramble": 14, "padded_leak": 14, "bogus": 3, "wrong": 4,
}  # fmt: skip


class DemoModelsConfig(BaseModel):
    """How the two models are made. Everything here decides their weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 0
    format: str = "stratos"
    terms: int = 3
    """Terms of the chains that the demonstration asks about."""
    shape: TinyShape = TinyShape()
    examples: int = 9600
    epochs: int = 2
    batch_size: int = 24
    learning_rate: float = 4e-3
    teacher_share: float = 0.4
    """Share of the first training's examples in the teacher's format."""
    teacher_steps: int = 60
    teacher_batch_size: int = 32
    teacher_learning_rate: float = 1e-3
    answer_noise: float = 0.1
    """Share of the explanations without the answer that stand before a random one, so that a student
    takes a wrong step for a slip and not for an impossibility."""


class DemoModels(NamedTuple):
    """Directories of the two models."""

    teacher: Path
    student: Path


def build_demo_models(
    directory: Path,
    *,
    seed: int = 0,
    reporter: Reporter | None = None,
    config: DemoModelsConfig | None = None,
) -> DemoModels:
    """Build `directory`/teacher and `directory`/student, or take them where they were built before.

    What was built with the same configuration and version of this program is not built again. Raises
    `MissingExtraError` without the packages that train models.
    """
    config = config or DemoModelsConfig(seed=seed)
    models = DemoModels(directory / "teacher", directory / "student")
    if has_demo_models(directory, config):
        return models
    identity = _describe_identity(config)
    note = directory / IDENTITY_FILE
    directory.mkdir(parents=True, exist_ok=True)
    note.unlink(missing_ok=True)
    _build(models, config, reporter or Reporter(quiet=True))
    note.write_text(json.dumps({"hash": hash_content(identity), **identity}, indent=2), encoding="utf-8")
    return models


def has_demo_models(directory: Path, config: DemoModelsConfig) -> bool:
    """Tell whether the two models of this configuration were built in `directory` before."""
    note = directory / IDENTITY_FILE
    if not note.is_file():
        return False
    built = json.loads(note.read_text(encoding="utf-8")).get("hash")
    return bool(built == hash_content(_describe_identity(config)))


def _describe_identity(config: DemoModelsConfig) -> dict[str, Any]:
    return {"scheme": SCHEME_VERSION, "version": __version__, "config": config.model_dump()}


def build_chain_tokenizer(format: ConversationFormat, *, terms: int, context: int = 4096) -> Any:
    """Build the tokenizer of chained arithmetic with up to `terms` terms from 0 to 9, in `format`.

    Each number that can come up, each word and each tag is one token, and so is each constant phrase.
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


def _build(models: DemoModels, config: DemoModelsConfig, reporter: Reporter) -> None:
    torch = require_module("torch", "models")
    format = load_format(config.format)
    tokenizer = build_chain_tokenizer(format, terms=config.terms, context=config.shape.context)
    model = build_tiny_model(config.shape, tokenizer, seed=config.seed)
    rng = random.Random(config.seed)
    texts = _write_first_texts(config, format, tokenizer, rng)
    later = build_teacher_examples(
        format,
        tokenizer,
        [_draw(rng, config, TEACHER_STYLES) for _ in range(config.teacher_steps * config.teacher_batch_size)],
    )
    check_example(later[0], tokenizer, closing=format.teacher.close)
    steps = config.examples * config.epochs // config.batch_size
    threads = torch.get_num_threads()
    # At this size threads cost more than they give, and on a busy machine far more.
    torch.set_num_threads(1)
    try:
        with reporter.track("training the tiny student", steps, unit="steps") as task:
            _train(model, tokenizer, texts, config.batch_size, config.learning_rate, steps, config.seed, task)
        save_model(model, tokenizer, models.student)
        with reporter.track("training the tiny teacher", config.teacher_steps, unit="steps") as task:
            _train(
                *(model, tokenizer, later, config.teacher_batch_size, config.teacher_learning_rate),
                *(config.teacher_steps, config.seed, task),
            )
        save_model(model, tokenizer, models.teacher)
    finally:
        torch.set_num_threads(threads)


def _train(
    model: Any,
    tokenizer: Any,
    examples: Sequence[SupervisedExample],
    batch_size: int,
    learning_rate: float,
    steps: int,
    seed: int,
    task: Any,
) -> None:
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
    model.train()
    with tempfile.TemporaryDirectory() as folder:
        run_supervised(
            model,
            tokenizer,
            examples,
            options=options,
            output_dir=Path(folder),
            callbacks=[ProgressCallback(task)],
        )
    model.eval()


def _write_first_texts(
    config: DemoModelsConfig, format: ConversationFormat, tokenizer: Any, rng: random.Random
) -> list[SupervisedExample]:
    """Write the first training's texts: most in the student's format, some in the teacher's."""
    teacher = round(config.examples * config.teacher_share)
    as_student = [_draw_short(rng, config, 0.8, STUDENT_STYLES) for _ in range(config.examples - teacher)]
    as_teacher = [_draw_short(rng, config, 0.4, TEACHER_STYLES) for _ in range(teacher)]
    return [
        *build_student_examples(format, tokenizer, as_student),
        *build_teacher_examples(format, tokenizer, as_teacher),
    ]


def _draw_short(
    rng: random.Random, config: DemoModelsConfig, share: float, styles: dict[Style, int]
) -> Explained:
    """Draw a chain of any length with every step in `share` of the cases, else one of full length."""
    if rng.random() >= share:
        return _draw(rng, config, styles)
    chain = sample_chain(rng, rng.randint(2, config.terms))
    return _explain(rng, config, chain, "good")


def _draw(rng: random.Random, config: DemoModelsConfig, styles: dict[Style, int]) -> Explained:
    (style,) = rng.choices(list(styles), list(styles.values()))
    return _explain(rng, config, sample_chain(rng, config.terms), style)


def _explain(rng: random.Random, config: DemoModelsConfig, chain: Chain, style: Style) -> Explained:
    answer = chain.results[-1]
    if style in ("ramble", "wrong", "bogus") and rng.random() < config.answer_noise:
        answer = rng.randint(-9, 18)
    longest = 60 if rng.random() < 0.1 else 10
    think = write_explanation(chain, style, rng, longest_ramble=longest)
    return Explained(chain.question, render_answer(str(answer)), think)
