"""What a training recipe would do, told without doing it: `--dry-run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import polars as pl

from rlt_data.errors import RltDataError
from rlt_data.formats import load_format
from rlt_data.lake import Lake
from rlt_data.models import load_tokenizer, resolve_model
from rlt_data.recipe.training import FRESH, LoadedTraining, TrainingRecipe
from rlt_data.reward.tokenizers import refuse_other_tokens
from rlt_data.settings import Settings, use_settings
from rlt_data.stages.runtime.selection import keep_rows
from rlt_data.training.common.distributed import World
from rlt_data.training.common.memory import (
    ModelSize,
    count_processes,
    count_work,
    describe_pass,
    describe_state,
    estimate_memory,
    find_known_size,
    measure_model,
    read_weight_bytes,
    sum_memory,
    sum_sharded,
    write_bytes,
)
from rlt_data.training.from_scratch.arithmetic_model import measure_arithmetic_model
from rlt_data.training.rl.config import GrpoConfig, check_options
from rlt_data.training.rl.conflicts import find_conflicts, find_missing_packages
from rlt_data.training.sft.stage import SftConfig, count_steps, keep_learnable
from rlt_data.training.sft.stage import check_options as check_sft_options


def plan_training(loaded: LoadedTraining, lake: Lake, *, processes: int | None = None) -> dict[str, Any]:
    """Resolve a recipe, do its arithmetic, and list what would be refused at start.

    `processes` is how many it is to be started in; None takes those that run this. Keys: `recipe` (every
    key with its value), `warm-up` and `grpo` (lines for people), `refused` (sentences). Nothing is run or
    written.
    """
    recipe = loaded.recipe
    world = processes or World().size
    with use_settings(loaded.settings):
        plan = _Plan(recipe, loaded.settings, lake, world)
        return {
            "recipe": recipe.model_dump(mode="json", exclude_none=True),
            "warm-up": plan.describe_sft(),
            "grpo": plan.describe_grpo(),
            "refused": list(dict.fromkeys(plan.refused)),
        }


class _Plan:
    def __init__(self, recipe: TrainingRecipe, settings: Settings, lake: Lake, world: int) -> None:
        self.recipe = recipe
        self.settings = settings
        self.lake = lake
        self.world = world
        self.refused: list[str] = []
        self.guessed: set[str] = set()
        self._try(lambda: load_format(recipe.format))

    def describe_sft(self) -> dict[str, str]:
        config = self.recipe.make_sft()
        if config is None:
            return {}
        options = self._try(lambda: check_sft_options(config))
        if options is None:
            return {}
        self.refused += find_missing_packages(options)
        texts = self._try(lambda: self._count_explanations(config)) or 0
        batch = options.per_device_train_batch_size * options.gradient_accumulation_steps * self.world
        steps = count_steps(config, texts, world=self.world) if texts or options.max_steps > 0 else None
        lines = {
            "texts": f"{texts:,} explanations in the lake now",
            "texts a step": f"{batch}, in {count_processes(self.world)}",
            "epochs": f"{options.num_train_epochs:g}" if options.max_steps <= 0 else "as the steps take",
            "optimiser steps": "known once the lake has explanations" if steps is None else f"{steps:,}",
            "learning rate": f"{options.learning_rate:g}, {options.lr_scheduler_type.value}",
        }
        size = self._measure(self.recipe.teacher)
        length = config.max_tokens or (size.context if size else None)
        if size is not None and length is not None:
            lines["longest text"] = f"{length:,} tokens"
            weight = read_weight_bytes(config.trainer)
            micro = options.per_device_train_batch_size
            state = describe_state(size, weight=weight, lora=config.lora)
            rest = describe_pass(size, config.trainer, tokens=micro * length, weight=weight)
            lines |= {f"memory: {name}": write_bytes(value) for name, value in {**state, **rest}.items()}
            lines["memory in all"] = sum_memory(sum(state.values()) + sum(rest.values()))
            if self.world > 1 and config.lora is None:
                lines["memory in all, sharded"] = sum_sharded(size, 0, sum(rest.values()), world=self.world)
        return lines

    def describe_grpo(self) -> dict[str, str]:
        recipe = self.recipe
        config = recipe.make_grpo(recipe.name_model(recipe.teacher))
        if config is None:
            return {}
        options = self._try(lambda: check_options(config))
        lines: dict[str, str] = self._try(lambda: count_work(config, world=self.world)) or {}
        questions = self._try(lambda: self._count_questions(config)) or 0
        if questions:
            rounds = config.generations * config.questions_per_step / questions
            lines = {"questions": f"{questions:,} in the lake now, each {rounds:.2g} times", **lines}
        teacher = self._measure(recipe.teacher)
        asked = recipe.students if config.reward == "rlt" else ()
        sizes = {name: self._measure(name) for name in asked}
        loaded = () if config.student_server else asked
        students = {name: size for name in loaded if (size := sizes[name]) is not None}
        if config.rlt.lambda_kl and config.teacher_side != "none":
            self._compare_tokens([name for name in asked if sizes[name] is not None])
        if options is not None:
            context = teacher.context if teacher is not None else None
            self.refused += find_conflicts(config, options, context=context)
        if teacher is not None and len(students) == len(loaded):
            lines |= self._try(lambda: estimate_memory(config, teacher, students, world=self.world)) or {}
        if self.guessed:
            lines["models not here"] = f"{', '.join(sorted(self.guessed))}: sizes are the registry's"
        return lines

    def _count_explanations(self, config: SftConfig) -> int:
        rows = keep_rows(self.lake, self.lake.table("traces").scan(), "traces", config.where)
        found = int(keep_learnable(rows).select(pl.len()).collect().item())
        return min(found, config.limit or found)

    def _count_questions(self, config: GrpoConfig) -> int:
        rows = keep_rows(self.lake, self.lake.table("questions").scan(), "questions", config.where)
        found = int(rows.select(pl.len()).collect().item())
        return min(found, config.limit or found)

    def _measure(self, name: str) -> ModelSize | None:
        """Measure a model; one that is not here is refused, and has the registry's size where it is there."""
        if name == FRESH and self.recipe.fresh is not None:
            return measure_arithmetic_model(self.recipe.fresh)
        size = self._try(lambda: measure_model(resolve_model(name, role="teacher", need="tokenizer")))
        if size is None and (known := find_known_size(name, self.settings)) is not None:
            self.guessed.add(name)
            return known
        return size if isinstance(size, ModelSize) else None

    def _compare_tokens(self, students: Sequence[str]) -> None:
        """Refuse students whose tokens are others than the teacher's, of those that are here."""
        names = [self.recipe.teacher, *students]
        if FRESH in names or self.guessed & set(names):
            return
        teacher, *others = (
            load_tokenizer(resolve_model(name, role="student", need="tokenizer")) for name in names
        )
        for name, tokenizer in zip(students, others, strict=True):
            self._try(partial(refuse_other_tokens, teacher, tokenizer, where=f"student {name}"))

    def _try(self, act: Callable[[], Any]) -> Any:
        """Do something that may be refused; the refusal is kept as a sentence, and None returned."""
        try:
            return act()
        except RltDataError as error:
            where = f" ({error.where})" if error.where else ""
            self.refused.append(error.what + where + (f": {error.remedy}" if error.remedy else ""))
            return None
