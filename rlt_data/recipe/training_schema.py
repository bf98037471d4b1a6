"""Schema of recipes that train a model: what every role shares, and one class per role.

To add a role: its entry in `rlt_data/training/registry.py`, which gives it a command, a class here with an
entry in `RECIPES`, and its case in `rlt_data/training/sft/roles.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from rlt_data.bounds import STRICT, TrainingSeed
from rlt_data.formats import Role
from rlt_data.recipe.schema import Tables
from rlt_data.settings import ModelSettings
from rlt_data.stages.ingest import IngestConfig
from rlt_data.stages.rank.config import RankConfig
from rlt_data.stages.runtime.contract import StageConfig, StageSummary
from rlt_data.stages.score.config import ScoreConfig
from rlt_data.stages.substitute.config import SubstituteConfig
from rlt_data.training.common.requirements import find_missing_packages, refuse
from rlt_data.training.from_scratch.arithmetic_model import ArithmeticModelConfig
from rlt_data.training.rl.config import AnyGrpoConfig, GrpoConfig, GrpoSection, RlSection, StudentGrpoConfig
from rlt_data.training.rl.conflicts import find_conflicts
from rlt_data.training.rl.options import check_options as check_grpo_options
from rlt_data.training.rl.reward_types import find_reward_type
from rlt_data.training.rl.stage import train_grpo
from rlt_data.training.sft.config import SftConfig, SftSection
from rlt_data.training.sft.options import check_options as check_sft_options
from rlt_data.training.sft.stage import train_sft

FRESH = "fresh"
"""The name of a recipe's model that [fresh] trains from scratch."""


@dataclass(frozen=True)
class TrainingStep:
    """One training of a recipe.

    `make_config` takes the model to start from; `check` raises `UsageError` for an invalid configuration;
    `train` runs it.
    """

    section: str
    make_config: Callable[[str], Any]
    check: Callable[[Any], None]
    train: Callable[..., StageSummary]


def _read_off(value: Any) -> Any:
    """Read `false` as no section: TOML has no other word for it."""
    return None if value is False else value


class TrainingRecipe(BaseModel):
    """What recipes of every role share. The trained model is `output`/`role`."""

    model_config = STRICT
    role: ClassVar[Role]
    data_stages: ClassVar[tuple[str, ...]] = ("ingest",)
    """The stages that may come before the trainings, by section, in their order."""

    lake: str | None = Field(None, description="The lake; --lake and RLT_DATA_LAKE override it.")
    output: str = Field(description="Directory of all models that are trained.")
    format: str = Field("stratos", description="Conversation format.")
    seed: TrainingSeed = Field(0, description="Seed of all trainings.")
    models: Mapping[str, ModelSettings] = Field(
        default_factory=dict, description="Models by name, in addition to those of rlt-data.toml."
    )
    formats: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict,
        description="Conversation formats by name, in addition to those of rlt-data.toml.",
    )
    tasks: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="Tasks by name, in addition to those of rlt-data.toml."
    )
    fresh: ArithmeticModelConfig | None = Field(None, description="A tiny model to train from scratch first.")
    ingest: Tables[IngestConfig] = ()
    sft: Annotated[SftSection | None, BeforeValidator(_read_off)] = Field(
        None, description="Supervised fine-tuning; `sft = false` turns off that of an earlier recipe."
    )

    @property
    @abstractmethod
    def base(self) -> str:
        """The name of the model to start from."""

    @property
    def other_models(self) -> tuple[str, ...]:
        """The names of the other models that trainings use."""
        return ()

    @property
    def result(self) -> Path:
        """Where the trained model is published."""
        return Path(self.output) / self.role

    def list_data_configs(self) -> list[tuple[str, StageConfig]]:
        """List the stages that come before the trainings, by name, in the order in which they run.

        A substitute that names no format has the recipe's.
        """
        found: list[tuple[str, StageConfig]] = []
        for name in self.data_stages:
            for config in getattr(self, name):
                own = name == "substitute" and "format" not in config.model_fields_set
                found.append((name, config.model_copy(update={"format": self.format}) if own else config))
        return found

    def list_steps(self) -> list[TrainingStep]:
        """List the trainings in the order in which they run."""
        return [TrainingStep("sft", self.make_sft, _check_sft, train_sft)] if self.sft is not None else []

    def resolve_name(self, name: str) -> str:
        """Return the model that a name in this recipe means."""
        return str(Path(self.output) / FRESH) if name == FRESH and self.fresh is not None else name

    def make_sft(self, base: str) -> SftConfig:
        """Make the configuration of the SFT that starts from `base`."""
        section = self.sft or SftSection()
        return SftConfig(
            **section.model_dump(),
            role=self.role,
            model=base,
            output=self.output,
            format=self.format,
            seed=self.seed,
        )

    @model_validator(mode="after")
    def _check_fresh(self) -> TrainingRecipe:
        names = (self.base, *self.other_models)
        if self.fresh is None and FRESH in names and FRESH not in self.models:
            raise ValueError("a model is named fresh, but there is no [fresh] section that trains it")
        return self


class TeacherRecipe(TrainingRecipe):
    """Trains a teacher. [fresh], [[ingest]], [sft] and [grpo] run in this order."""

    role: ClassVar[Role] = "teacher"

    teacher: str = Field(description="The model to start from; `fresh` is the one of [fresh].")
    students: tuple[str, ...] = Field(
        (), description="Students whose understanding of the explanations is the reward."
    )
    grpo: GrpoSection | None = Field(None, description="GRPO, from the model of [sft] where there is one.")

    @property
    def base(self) -> str:
        """The name of the model to start from."""
        return self.teacher

    @property
    def other_models(self) -> tuple[str, ...]:
        """The students."""
        return self.students

    def list_steps(self) -> list[TrainingStep]:
        """List the trainings in the order in which they run."""
        steps = super().list_steps()
        if self.grpo is not None:
            steps.append(TrainingStep("grpo", self.make_grpo, _check_grpo, train_grpo))
        return steps

    def make_grpo(self, base: str) -> GrpoConfig:
        """Make the configuration of the GRPO that starts from `base`."""
        section = self.grpo or GrpoSection()
        return GrpoConfig(
            **section.model_dump(),
            model=base,
            students=tuple(self.resolve_name(name) for name in self.students),
            output=self.output,
            format=self.format,
            seed=self.seed,
        )

    @model_validator(mode="after")
    def _check_trainings(self) -> TeacherRecipe:
        if self.sft is None and self.grpo is None:
            raise ValueError("the recipe trains nothing: add [sft], [grpo] or both")
        if self.grpo is not None and self.grpo.reward.needs_students and not self.students:
            raise ValueError("the reward rlt needs a student: name one in students")
        return self


class StudentRecipe(TrainingRecipe):
    """Trains a student. [fresh], [[ingest]], [[score]], [[rank]], [[substitute]], [sft] and [rl] run in this
    order; the examples are those of its last [[substitute]], where it has one.

    Without [sft] and without [rl] it is trained by SFT, with the defaults of [sft].
    """

    role: ClassVar[Role] = "student"
    data_stages: ClassVar[tuple[str, ...]] = ("ingest", "score", "rank", "substitute")

    student: str = Field(description="The model to start from; `fresh` is the one of [fresh].")
    score: Tables[ScoreConfig] = ()
    rank: Tables[RankConfig] = ()
    substitute: Tables[SubstituteConfig] = ()
    rl: RlSection | None = Field(
        None, description="GRPO on correct answers, from the model of [sft] where there is one."
    )

    @property
    def base(self) -> str:
        """The name of the model to start from."""
        return self.student

    def list_steps(self) -> list[TrainingStep]:
        """List the trainings in the order in which they run."""
        steps = super().list_steps()
        if self.rl is not None:
            steps.append(TrainingStep("rl", self.make_rl, _check_grpo, train_grpo))
        return steps or [TrainingStep("sft", self.make_sft, _check_sft, train_sft)]

    def make_rl(self, base: str) -> StudentGrpoConfig:
        """Make the configuration of the GRPO that starts from `base`."""
        section = self.rl or RlSection()
        return StudentGrpoConfig(
            **section.model_dump(), model=base, output=self.output, format=self.format, seed=self.seed
        )


RECIPES: Mapping[Role, type[TrainingRecipe]] = {"teacher": TeacherRecipe, "student": StudentRecipe}


def _check_sft(config: SftConfig) -> None:
    refuse(find_missing_packages(check_sft_options(config)), where="sft.trainer")


def _check_grpo(config: AnyGrpoConfig) -> None:
    find_reward_type(config)
    refuse(find_conflicts(config, check_grpo_options(config), context=None), where=config.section)
