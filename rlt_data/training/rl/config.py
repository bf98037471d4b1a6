"""Configuration of GRPO: what the teacher is trained on, for which reward, and TRL's own options."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field, model_validator

from rlt_data.errors import UsageError
from rlt_data.reward.settings import RewardSettings
from rlt_data.stages.runtime.contract import StageConfig
from rlt_data.training.common.distributed import World, choose_precision
from rlt_data.training.common.trl_options import (
    RESERVED,
    RESERVED_GRPO,
    build_lora,
    build_options,
    select_deciding,
)

ItemT = TypeVar("ItemT")

_PLACES = ("output", "micro_batch_size", "save_every", "keep_checkpoints", "sync_limit", "pack_tokens")


class GrpoSection(StageConfig):
    """What the teacher is trained on, and how. The defaults are the paper's (arXiv 2506.08388).

    `trainer` passes options of `trl.GRPOConfig` through, `lora` those of `peft.LoraConfig`.
    """

    where: str | None = Field(None, description="SQL predicate over questions: train on these alone.")
    limit: int | None = Field(None, ge=1, description="Train on the first so many questions only.")

    steps: int = Field(125, ge=1, description="Optimiser steps.")
    questions_per_step: int = Field(16, ge=1, description="Questions a generation.")
    group_size: int = Field(64, ge=2, description="Completions a question, among which rewards are compared.")
    micro_batch_size: int | None = Field(
        None, ge=1, description="Completions a device holds in one forward and backward pass; unset: all."
    )
    temperature: float = Field(0.7, gt=0, description="Sampling temperature.")
    max_tokens: int = Field(16384, ge=1, description="Limit on the tokens of a completion.")
    max_prompt_tokens: int = Field(16384, ge=1, description="Questions with a longer prompt are rejected.")
    save_every: int = Field(25, ge=1, description="Optimiser steps between checkpoints.")
    keep_checkpoints: int = Field(1, ge=1, description="Checkpoints to keep.")

    reward: Literal["rlt", "correctness"] = Field(
        "rlt",
        description="rlt: the student's understanding. correctness: the conventional baseline, which sees no "
        "solution and is paid 1 for a right answer.",
    )
    rlt: RewardSettings = Field(RewardSettings(), description="Estimator, alpha, lambda_kl, penalty.")
    student_temperature: float = Field(0.7, gt=0, description="The students' logits are divided by this.")
    teacher_temperature: float = Field(0.7, gt=0, description="The teacher's logits are divided by this.")
    teacher_side: Literal["auto", "policy", "sampled", "reference", "none"] = Field(
        "auto", description="Whose log-probabilities stand on the teacher's side; auto spares a forward pass."
    )
    combine: Literal["mean", "minimum"] = Field(
        "mean", description="Over several students: mean or least reward."
    )
    shuffle_rewards: bool = Field(
        False, description="Control: hand each group's rewards out at random, so that they mean nothing."
    )
    student_dtype: str = Field("auto", description="Floating-point type of the students.")
    student_device: str = Field("auto", description="Where the students are: auto, cpu, cuda:1 and so on.")
    student_quantization: Literal["none", "8bit", "4bit"] = Field("none", description="By bitsandbytes.")
    student_server: dict[str, Any] = Field(
        default_factory=dict,
        description="Students behind a vLLM server: base_url and the other options of the openai engine.",
    )
    pack_tokens: int | None = Field(
        None, ge=1, description="Tokens that one scoring pass holds; unset: by memory."
    )
    sync_limit: float | None = Field(
        0.1, gt=0, description="Largest mean gap between vLLM's log-probabilities and the trainer's, nats."
    )
    trainer: dict[str, Any] = Field(default_factory=dict, description="Options of trl.GRPOConfig.")
    lora: dict[str, Any] | None = Field(
        None, description="Options of peft.LoraConfig; unset trains all weights."
    )

    @model_validator(mode="after")
    def _check_reward(self) -> GrpoSection:
        if self.teacher_side == "sampled" and self.rlt.needs_divergences:
            raise ValueError("the exact divergence needs teacher_side policy or reference")
        if self.student_server and self.rlt.needs_divergences:
            raise ValueError("the exact divergence needs whole distributions, which no server gives")
        if self.student_server and self.student_temperature != 1:
            raise ValueError(
                "a server applies no temperature to the texts it is given: set grpo.student_temperature to 1"
            )
        if self.teacher_side == "sampled" and self.temperature != self.teacher_temperature:
            raise ValueError(
                "teacher_side sampled asks for one temperature: grpo.temperature is "
                f"{self.temperature} and grpo.teacher_temperature {self.teacher_temperature}"
            )
        updates = self.trainer.get("num_iterations", 1)
        if not isinstance(updates, int) or updates < 1:
            raise ValueError(f"grpo.trainer.num_iterations must be a whole number from 1 up, not {updates!r}")
        if self.save_every % self.updates_per_generation:
            raise ValueError(
                f"save_every must be a multiple of num_iterations ({self.updates_per_generation}): a "
                "checkpoint amid the updates of one generation could not be resumed exactly"
            )
        return self

    @property
    def generation_size(self) -> int:
        """Completions of one generation, over all processes."""
        return self.questions_per_step * self.group_size

    @property
    def updates_per_generation(self) -> int:
        """Optimiser steps taken on the completions of one generation."""
        return int(self.trainer.get("num_iterations", 1))

    @property
    def generations(self) -> int:
        """How often the teacher generates in the whole training."""
        return -(-self.steps // self.updates_per_generation)


class GrpoConfig(GrpoSection):
    """A whole GRPO training."""

    # Where results go, and how work is cut up: the reward does not depend on them.
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({*_PLACES, "student_device", "student_server"})

    teacher: str = Field(description="The model to train: an alias, a hub id or a local path.")
    students: tuple[str, ...] = Field((), description="Frozen students whose understanding is the reward.")
    output: str = Field(description="Directory for checkpoints and for the trained model.")
    format: str = Field("stratos", description="Conversation format.")
    seed: int = Field(0, ge=0, description="Seed of the order of questions and of what is sampled.")

    @model_validator(mode="after")
    def _check_students(self) -> GrpoConfig:
        if self.reward == "rlt" and not self.students:
            raise ValueError("the RLT reward needs a student: name one in students")
        return self

    def list_identity(self) -> dict[str, Any]:
        """Return what decides the result: of the trainer's options, those that do."""
        return {**super().list_identity(), "trainer": select_deciding(self.trainer)}


def list_options(config: GrpoConfig, output: Path, *, world: int) -> dict[str, Any]:
    """The options of `trl.GRPOConfig` in full: the recipe's over this program's defaults.

    Raises `UsageError` where the completions of a generation do not divide into equal passes.
    """
    per_process, rest = divmod(config.generation_size, world)
    micro = config.micro_batch_size or per_process
    if rest or per_process % micro:
        raise UsageError(
            f"{config.questions_per_step} questions x {config.group_size} completions do not divide into "
            f"passes of {micro} in each of {world} processes",
            where="grpo.micro_batch_size",
            remedy="choose a divisor, or other numbers of questions and completions",
        )
    correction = config.trainer.get("vllm_importance_sampling_correction", True)
    if config.trainer.get("use_vllm") and config.sync_limit is not None and not correction:
        raise UsageError(
            "without vllm_importance_sampling_correction the trainer does not recompute what vLLM sampled, "
            "so nothing proves that vLLM has the trained weights",
            where="grpo.trainer.vllm_importance_sampling_correction",
            remedy="leave it on",
        )
    defaults: dict[str, Any] = {"logging_steps": 1, "report_to": "none", "save_strategy": "steps"}
    return {
        **defaults,
        **choose_precision(config.trainer),
        **config.trainer,
        "output_dir": str(output),
        "max_steps": config.steps,
        "num_generations": config.group_size,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": per_process // micro,
        "steps_per_generation": per_process // micro,
        "temperature": config.temperature,
        "max_completion_length": config.max_tokens,
        "save_steps": config.save_every,
        "save_total_limit": None,
        "seed": config.seed,
        "shuffle_dataset": False,
        "remove_unused_columns": False,
        "disable_tqdm": True,
    }


def check_options(config: GrpoConfig, *, world: int | None = None) -> Any:
    """Build the `trl.GRPOConfig` of a recipe, and try its LoRA options.

    Raises `UsageError` as `build_options` and `list_options` do.
    """
    reserved = {**RESERVED, **RESERVED_GRPO}
    build_options("GRPOConfig", _alone(config), where="grpo.trainer", reserved=reserved)
    build_lora(config.lora, where="grpo.lora")
    options = list_options(config, Path(config.output), world=world or World().size)
    return build_options("GRPOConfig", options, where="grpo.trainer")


def _alone(config: GrpoConfig) -> dict[str, Any]:
    return {**choose_precision(config.trainer), **config.trainer}


def plan_questions(items: Sequence[ItemT], config: GrpoConfig) -> list[ItemT]:
    """The questions of the whole training in order: every one once before any comes again.

    The order depends on the seed alone, so that a resumed training goes on in it.
    """
    rng = random.Random(config.seed)
    wanted = config.generations * config.questions_per_step
    plan: list[ItemT] = []
    while len(plan) < wanted:
        order = list(items)
        rng.shuffle(order)
        plan.extend(order)
    return plan[:wanted]
