"""What a recipe is: the lake, models and formats of its own, and the stages with their configurations.

The sections of a recipe are the configurations of the registered stages, from which the command line makes
its options too. They run in the order of the registry, whatever their order in the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, create_model

from rlt_data.bounds import STRICT, TrainingSeed
from rlt_data.settings import ModelSettings
from rlt_data.stages.registry import STAGES
from rlt_data.stages.runtime.contract import StageConfig
from rlt_data.stages.runtime.declaration import StageDeclaration
from rlt_data.stages.runtime.stage import Stage, load_stage

ConfigT = TypeVar("ConfigT", bound=StageConfig)


def _make_list(value: Any) -> Any:
    """Accept one table as an array of one, so that [stage] and [[stage]] both work."""
    return [value] if isinstance(value, Mapping) else value


Tables = Annotated[tuple[ConfigT, ...], BeforeValidator(_make_list)]


class TinyModels(BaseModel):
    """Tiny models that are trained on this machine before the first stage: `path`/teacher, `path`/student."""

    model_config = STRICT

    path: str = Field(description="Directory of the two models.")
    seed: TrainingSeed = Field(0, description="Seed of their weights and of their training data.")


@dataclass(frozen=True)
class Step:
    """One stage of a recipe: its declaration, its index in its section (from 0) and its configuration."""

    declaration: StageDeclaration
    index: int
    config: StageConfig

    @property
    def section(self) -> str:
        """The name of the section."""
        return self.declaration.section

    def load(self) -> Stage[Any]:
        """Import the stage."""
        return load_stage(self.declaration)


class Recipe(BaseModel):
    """A whole recipe; `build_recipe_model` adds the section of each registered stage."""

    model_config = STRICT

    lake: str | None = Field(None, description="The lake; --lake and RLT_DATA_LAKE override it.")
    tiny_models: TinyModels | None = Field(None, description="Tiny models to make first.")
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

    def list_configs(self, section: str) -> tuple[StageConfig, ...]:
        """Return the configurations of a section, in the order of the recipe."""
        configs: tuple[StageConfig, ...] = getattr(self, section)
        return configs

    def list_steps(self, section: str | None = None) -> list[Step]:
        """List the stages, or those of one section, in the order in which they run."""
        return [
            Step(declaration, index, config)
            for declaration in STAGES
            if section in (None, declaration.section)
            for index, config in enumerate(self.list_configs(declaration.section))
        ]

    def find_maker(self, step: Step) -> int | None:
        """Find the step whose set `step` uses, by its index in its section; None where no step makes one.

        As many sets as stages that use them are paired one by one; otherwise the last set is used.
        """
        made_by = step.declaration.made_by
        if made_by is None or getattr(step.config, made_by.field) is not None:
            return None
        makers, users = len(self.list_configs(made_by.stage)), len(self.list_configs(step.section))
        if not makers:
            return None
        return step.index if makers == users else makers - 1


@cache
def build_recipe_model() -> type[Recipe]:
    """Build the class of recipes. A section appears once, as [stage], or several times, as [[stage]]."""
    sections: dict[str, Any] = {}
    for declaration in STAGES:
        config: Any = load_stage(declaration).config
        sections[declaration.section] = (Tables[config], ())
    model: type[Recipe] = create_model("Recipe", __base__=Recipe, __doc__=Recipe.__doc__, **sections)
    return model
