"""Recipes of teacher training: the models, the data, a warm-up and GRPO, in one TOML file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlt_data.formats import load_format
from rlt_data.lake import Lake
from rlt_data.progress import Reporter
from rlt_data.recipe.load import merge_settings, read_documents
from rlt_data.recipe.schema import Tables
from rlt_data.settings import ModelSettings, Settings, load_settings, use_settings
from rlt_data.stages.ingest.stage import IngestConfig, ingest
from rlt_data.stages.runtime.contract import StageSummary
from rlt_data.toml import validate_data
from rlt_data.training.common.distributed import World, end_training, train_alone
from rlt_data.training.common.saving import publish_model
from rlt_data.training.from_scratch.arithmetic_model import ArithmeticModelConfig, build_arithmetic_model
from rlt_data.training.rl.config import GrpoConfig, GrpoSection, check_options
from rlt_data.training.rl.conflicts import find_conflicts, find_missing_packages, refuse
from rlt_data.training.rl.stage import train_grpo
from rlt_data.training.sft.stage import SftConfig, SftSection, train_sft
from rlt_data.training.sft.stage import check_options as check_sft_options

FRESH = "fresh"
"""The name by which teacher and students mean the fresh model of [fresh]."""


class TrainingRecipe(BaseModel):
    """A whole recipe of teacher training. [fresh], [[ingest]], [sft] and [grpo] run in this order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lake: str | None = Field(None, description="The lake; --lake and RLT_DATA_LAKE win over it.")
    output: str = Field(description="Directory of everything that is trained; the result is output/teacher.")
    teacher: str = Field(description="The model to start from; `fresh` is the one of [fresh].")
    students: tuple[str, ...] = Field((), description="The students whose understanding is the reward.")
    format: str = Field("stratos", description="Conversation format.")
    seed: int = Field(0, ge=0, description="Seed of everything.")
    models: Mapping[str, ModelSettings] = Field(
        default_factory=dict, description="Models by name, over those of rlt-data.toml."
    )
    formats: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="Conversation formats by name, over those of rlt-data.toml."
    )
    fresh: ArithmeticModelConfig | None = Field(None, description="A tiny model to make first, from nothing.")
    ingest: Tables[IngestConfig] = ()
    sft: SftSection | None = Field(None, description="SFT warm-up; without it GRPO starts from `teacher`.")
    grpo: GrpoSection | None = Field(
        None, description="GRPO; without it the warmed-up teacher is the result."
    )

    @model_validator(mode="after")
    def _check(self) -> TrainingRecipe:
        if self.sft is None and self.grpo is None:
            raise ValueError("the recipe trains nothing: add [sft], [grpo] or both")
        if self.fresh is None and FRESH in (self.teacher, *self.students) and FRESH not in self.models:
            raise ValueError("a model is named fresh, but there is no [fresh] section that makes it")
        if self.grpo is not None and self.grpo.reward == "rlt" and not self.students:
            raise ValueError("the RLT reward needs a student: name one in students")
        return self

    def name_model(self, name: str) -> str:
        """What a model name of this recipe means to the stages."""
        return str(Path(self.output) / FRESH) if name == FRESH and self.fresh is not None else name

    def make_sft(self) -> SftConfig | None:
        """The configuration of the warm-up, None without one."""
        if self.sft is None:
            return None
        return SftConfig(
            **self.sft.model_dump(),
            teacher=self.name_model(self.teacher),
            output=self.output,
            format=self.format,
            seed=self.seed,
        )

    def make_grpo(self, teacher: str) -> GrpoConfig | None:
        """The configuration of GRPO that starts from `teacher`, None without GRPO."""
        if self.grpo is None:
            return None
        return GrpoConfig(
            **self.grpo.model_dump(),
            teacher=teacher,
            students=tuple(self.name_model(name) for name in self.students),
            output=self.output,
            format=self.format,
            seed=self.seed,
        )


@dataclass(frozen=True)
class LoadedTraining:
    """A training recipe with the settings that hold while it runs."""

    recipe: TrainingRecipe
    settings: Settings

    @property
    def lake(self) -> str | None:
        """The lake that the recipe names, or else the one of the user's settings."""
        return self.recipe.lake if self.recipe.lake is not None else self.settings.lake


def load_training(names: Sequence[str | Path], overrides: Sequence[str] = ()) -> LoadedTraining:
    """Load training recipes, composed from left to right, with overrides such as `grpo.steps=10` on top.

    Raises `UsageError` with file, line and the nearest right key for one that is unknown.
    """
    data, documents = read_documents(names, overrides)
    recipe = validate_data(TrainingRecipe, data, documents)
    settings = merge_settings(recipe.models, recipe.formats, load_settings())
    return LoadedTraining(recipe, settings)


def train_teacher(
    loaded: LoadedTraining,
    lake: Lake,
    *,
    force: bool = False,
    reporter: Reporter | None = None,
    on_summary: Callable[[StageSummary], None] | None = None,
) -> list[StageSummary]:
    """Carry a training recipe out; what finished before is not done again, what was cut off goes on.

    Started by `accelerate launch` or `torchrun`, every process calls this, and the main one alone reads
    and writes the lake. The trained teacher is `output`/teacher.
    """
    recipe = loaded.recipe
    summaries: list[StageSummary] = []

    def keep(summary: StageSummary) -> None:
        summaries.append(summary)
        if on_summary:
            on_summary(summary)

    with use_settings(loaded.settings):
        _share(lambda: _prepare(recipe, lake, reporter, keep))
        teacher = recipe.name_model(recipe.teacher)
        warm = recipe.make_sft()
        if warm is not None:
            teacher = _run(lambda: train_sft(lake, warm, force=force, reporter=reporter), keep)
        grpo = recipe.make_grpo(teacher)
        if grpo is not None:
            teacher = _run(lambda: train_grpo(lake, grpo, force=force, reporter=reporter), keep)
        if World().is_main:
            publish_model(Path(teacher), Path(recipe.output) / "teacher")
    return summaries


def _prepare(
    recipe: TrainingRecipe, lake: Lake, reporter: Reporter | None, keep: Callable[[StageSummary], None]
) -> None:
    with train_alone():
        _check(recipe)
    if recipe.fresh is not None:
        build_arithmetic_model(Path(recipe.output) / FRESH, recipe.fresh, reporter)
    for config in recipe.ingest:
        keep(ingest(lake, config, reporter=reporter))


def _check(recipe: TrainingRecipe) -> None:
    """Refuse what the last section would refuse before the first one has taken its hours."""
    load_format(recipe.format)
    warm, grpo = recipe.make_sft(), recipe.make_grpo(recipe.name_model(recipe.teacher))
    if warm is not None:
        refuse(find_missing_packages(check_sft_options(warm)), where="sft.trainer")
    if grpo is not None:
        refuse(find_conflicts(grpo, check_options(grpo), context=None), where="grpo")


def _run(stage: Callable[[], StageSummary], keep: Callable[[StageSummary], None]) -> str:
    """Run a stage in every process; returns, in every process, the model that it made."""
    world = World()
    summary = stage()
    if world.is_main:
        keep(summary)
    end_training()
    return str(_share(lambda: summary.extra["model"]))


def _share(make: Callable[[], Any]) -> Any:
    """Compute a plain value in the main process, and have it in all."""
    world = World()
    if not world.is_main:
        return world.receive()
    try:
        value = make()
        world.send(value)
        return value
    finally:
        world.fail()
