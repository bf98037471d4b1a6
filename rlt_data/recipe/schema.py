"""What a recipe is: the lake, models and formats of its own, and the stages with their configurations.

The sections of a recipe are the configurations of the stages, the same classes that the command line makes
its options from. They run in the order of the pipeline, in whatever order a file holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from rlt_data.settings import ModelSettings
from rlt_data.stages.export.stage import ExportConfig, export
from rlt_data.stages.generate.stage import GenerateConfig, generate
from rlt_data.stages.ingest.stage import IngestConfig, ingest
from rlt_data.stages.rank.stage import RankConfig, rank
from rlt_data.stages.reward.stage import RewardConfig, reward
from rlt_data.stages.runtime.contract import StageConfig, StageSummary
from rlt_data.stages.score.stage import ScoreConfig, score
from rlt_data.stages.substitute.stage import SubstituteConfig, substitute

ConfigT = TypeVar("ConfigT", bound=StageConfig)


def _make_list(value: Any) -> Any:
    """Take one table as an array of one, so that [stage] and [[stage]] both do."""
    return [value] if isinstance(value, Mapping) else value


Tables = Annotated[tuple[ConfigT, ...], BeforeValidator(_make_list)]


class TinyModels(BaseModel):
    """Tiny models that are trained on this machine before the first stage: `path`/teacher, `path`/student."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str = Field(description="Directory of the two models.")
    seed: int = Field(0, description="Seed of their weights and of what they are trained on.")


@dataclass(frozen=True)
class Step:
    """One stage of a recipe: its section, its place there (from 0), its configuration and its function."""

    section: str
    place: int
    config: StageConfig
    stage: Callable[..., StageSummary]


class Recipe(BaseModel):
    """A whole recipe. Each section of a stage may stand once, as [stage], or several times, as [[stage]]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lake: str | None = Field(None, description="The lake; --lake and RLT_DATA_LAKE win over it.")
    tiny_models: TinyModels | None = Field(None, description="Tiny models to make first.")
    models: Mapping[str, ModelSettings] = Field(
        default_factory=dict, description="Models by name, over those of rlt-data.toml."
    )
    formats: Mapping[str, Mapping[str, Any]] = Field(
        default_factory=dict, description="Conversation formats by name, over those of rlt-data.toml."
    )
    ingest: Tables[IngestConfig] = ()
    generate: Tables[GenerateConfig] = ()
    score: Tables[ScoreConfig] = ()
    reward: Tables[RewardConfig] = ()
    rank: Tables[RankConfig] = ()
    substitute: Tables[SubstituteConfig] = ()
    export: Tables[ExportConfig] = ()

    def find_maker(self, step: Step) -> int | None:
        """Find the step whose set `step` reads, by its place in its section; None where none here makes it.

        As many takers as makers go together one by one; otherwise the last maker's set is read.
        """
        if step.section not in LINKS:
            return None
        maker, field = LINKS[step.section]
        makers, takers = len(getattr(self, maker)), len(getattr(self, step.section))
        if not makers or getattr(step.config, field) is not None:
            return None
        return step.place if makers == takers else makers - 1

    def list_steps(self) -> list[Step]:
        """List the stages in the order in which they run."""
        return [
            Step(section, place, config, stage)
            for section, stage in PIPELINE.items()
            for place, config in enumerate(getattr(self, section))
        ]


PIPELINE: dict[str, Callable[..., StageSummary]] = {
    "ingest": ingest,
    "generate": generate,
    "score": score,
    "reward": reward,
    "rank": rank,
    "substitute": substitute,
    "export": export,
}

# Section -> the section whose set it reads, and the field that names the run which made that.
LINKS: dict[str, tuple[str, str]] = {
    "substitute": ("rank", "ranking"),
    "export": ("substitute", "distillation"),
}
