"""The dry run of a training recipe: steps, tokens, memory and problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar, assert_never

import polars as pl

from rlt_data.errors import LakeError, RltDataError
from rlt_data.formats import load_format
from rlt_data.lake import Lake
from rlt_data.models import load_tokenizer, resolve_model
from rlt_data.recipe.training import LoadedTraining, check_result
from rlt_data.recipe.training_schema import FRESH, TrainingRecipe
from rlt_data.reward.tokenizers import refuse_other_tokens
from rlt_data.settings import Settings, use_settings
from rlt_data.stages.runtime.selection import keep_rows
from rlt_data.training.common.distributed import World
from rlt_data.training.common.memory import ModelSize, find_registered_size, measure_model
from rlt_data.training.common.requirements import find_missing_packages
from rlt_data.training.from_scratch.arithmetic_model import measure_arithmetic_model
from rlt_data.training.rl import forecast as grpo_forecast
from rlt_data.training.rl.config import AnyGrpoConfig, GrpoConfig, StudentGrpoConfig
from rlt_data.training.rl.conflicts import find_conflicts
from rlt_data.training.rl.options import check_options as check_grpo_options
from rlt_data.training.rl.reward_types import find_reward_type
from rlt_data.training.sft import forecast as sft_forecast
from rlt_data.training.sft.config import SftConfig
from rlt_data.training.sft.options import check_options as check_sft_options
from rlt_data.training.sft.roles import find_role

ValueT = TypeVar("ValueT")


def plan_training(loaded: LoadedTraining, lake: Lake, *, processes: int | None = None) -> dict[str, Any]:
    """Resolve a recipe, forecast its steps, tokens and memory, and list its problems.

    `processes` is the number of processes that the training will have; None means the number that run now.
    Keys: `recipe` (every key with its value), `sections` (by section, lines of text), `refused` (the
    problems, as sentences). Nothing is run or written.
    """
    recipe = loaded.recipe
    with use_settings(loaded.settings):
        plan = _Plan(recipe, loaded.settings, lake, processes or World().size)
        return {
            "recipe": recipe.model_dump(mode="json", exclude_none=True),
            "sections": {section: lines for section, lines in plan.describe_sections() if lines},
            "refused": list(dict.fromkeys(plan.refused)),
        }


class _Plan:
    def __init__(self, recipe: TrainingRecipe, settings: Settings, lake: Lake, world: int) -> None:
        self.recipe = recipe
        self.settings = settings
        self.lake = lake
        self.world = world
        self.refused: list[str] = []
        self.absent: set[str] = set()
        self._try(lambda: load_format(recipe.format))
        self._try(lambda: check_result(recipe))

    def describe_sections(self) -> list[tuple[str, dict[str, str]]]:
        sections = []
        for step in self.recipe.list_steps():
            config = step.make_config(self.recipe.resolve_name(self.recipe.base))
            sections.append((step.section, self._describe(config)))
        return sections

    def _describe(self, config: SftConfig | AnyGrpoConfig) -> dict[str, str]:
        match config:
            case SftConfig():
                return self._describe_sft(config)
            case GrpoConfig() | StudentGrpoConfig():
                return self._describe_grpo(config)
            case never:
                assert_never(never)

    def _describe_sft(self, config: SftConfig) -> dict[str, str]:
        options = self._try(lambda: check_sft_options(config))
        if options is None:
            return {}
        self.refused += find_missing_packages(options)
        size = self._measure(self.recipe.base)
        context = size.context if size is not None else None
        counts = self._try(lambda: self._count_examples(config, context)) or sft_forecast.ExampleCounts()
        lines = (
            self._try(
                lambda: sft_forecast.count_work(config, options, counts, world=self.world, context=context)
            )
            or {}
        )
        if size is not None:
            lines |= sft_forecast.estimate_memory(config, options, size, world=self.world)
        return lines

    def _describe_grpo(self, config: AnyGrpoConfig) -> dict[str, str]:
        self._try(lambda: find_reward_type(config))
        options = self._try(lambda: check_grpo_options(config))
        lines = self._try(lambda: grpo_forecast.count_work(config, world=self.world)) or {}
        questions = self._try(lambda: self._count_questions(config)) or 0
        if questions:
            rounds = config.generations * config.questions_per_step / questions
            lines = {"questions": f"{questions:,} in the lake now, each used {rounds:.2g} times", **lines}
        trained = self._measure(self.recipe.base)
        names = self.recipe.other_models if config.scoring_students else ()
        sizes = {name: self._measure(name) for name in names}
        loaded = names
        if isinstance(config, GrpoConfig):
            loaded = () if config.student_server else names
            if config.reward.lambda_kl and config.teacher_logprobs != "none":
                self._compare_tokenizers([name for name in names if sizes[name] is not None])
        students = {name: size for name in loaded if (size := sizes[name]) is not None}
        if options is not None:
            context = trained.context if trained is not None else None
            self.refused += find_conflicts(config, options, context=context)
        if trained is not None and len(students) == len(loaded):
            memory = self._try(
                lambda: grpo_forecast.estimate_memory(config, trained, students, world=self.world)
            )
            lines |= memory or {}
        if self.absent:
            lines["models not on this machine"] = f"{', '.join(sorted(self.absent))}: sizes from the registry"
        return lines

    def _count_examples(self, config: SftConfig, context: int | None) -> sft_forecast.ExampleCounts:
        """Count what is learned from; tokens where `substitute` counted them, by its own tokenizer."""
        role = find_role(config.role)
        made = dict(self.recipe.list_data_configs())
        try:
            source = role.find_source(self.lake, config)
        except LakeError:
            if config.role == "student" and "substitute" in made:
                return sft_forecast.ExampleCounts(pending=True)
            raise
        rows = keep_rows(self.lake, self.lake.table(role.table).scan(), role.table, config.where)
        keys = role.list_keys(role.keep_rows(rows, source))
        kept = keys if config.limit is None else keys.head(config.limit)
        if config.role == "teacher":
            return sft_forecast.ExampleCounts(int(kept.select(pl.len()).collect().item()))
        counted = self.lake.table(role.table).scan().select(key="example_id", tokens="total_tokens")
        tokens = kept.join(counted, on="key").select("tokens").collect().get_column("tokens")
        limit = config.max_tokens or context
        return sft_forecast.ExampleCounts(
            len(tokens),
            tokens=int(tokens.sum()),
            longest=int(tokens.to_numpy().max(initial=0)),
            over_long=int((tokens > limit).sum()) if limit is not None else 0,
        )

    def _count_questions(self, config: AnyGrpoConfig) -> int:
        rows = keep_rows(self.lake, self.lake.table("questions").scan(), "questions", config.where)
        found = int(rows.select(pl.len()).collect().item())
        return min(found, config.limit or found)

    def _measure(self, name: str) -> ModelSize | None:
        """Measure a model; one that is not on this machine is a problem, and its size is the registry's."""
        if name == FRESH and self.recipe.fresh is not None:
            return measure_arithmetic_model(self.recipe.fresh)
        size = self._try(lambda: measure_model(resolve_model(name, role=self.recipe.role, need="tokenizer")))
        if size is None and (registered := find_registered_size(name, self.settings)) is not None:
            self.absent.add(name)
            return registered
        return size

    def _compare_tokenizers(self, students: Sequence[str]) -> None:
        """Refuse students that tokenize text differently from the teacher, where all are on this machine."""
        names = [self.recipe.base, *students]
        if FRESH in names or self.absent & set(names):
            return
        teacher, *others = (
            load_tokenizer(resolve_model(name, role="student", need="tokenizer")) for name in names
        )
        for name, tokenizer in zip(students, others, strict=True):
            self._try(partial(refuse_other_tokens, teacher, tokenizer, where=f"student {name}"))

    def _try(self, act: Callable[[], ValueT]) -> ValueT | None:
        """Call `act`; where it raises an error, record it as a sentence and return None."""
        try:
            return act()
        except RltDataError as error:
            where = f" ({error.where})" if error.where else ""
            self.refused.append(error.what + where + (f": {error.remedy}" if error.remedy else ""))
            return None
