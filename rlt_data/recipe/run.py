"""Run a recipe, stage after stage, or only plan it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlt_data.lake import Lake
from rlt_data.progress import Reporter
from rlt_data.recipe.load import LoadedRecipe
from rlt_data.recipe.schema import Recipe, Step
from rlt_data.settings import use_settings
from rlt_data.stages.runtime.contract import StageConfig, StageSummary
from rlt_data.training.from_scratch.demo_models import DemoModelsConfig, build_demo_models, has_demo_models

PlannedState = Literal["finished", "interrupted", "new", "waits"]


@dataclass(frozen=True)
class PlannedStep:
    """What would happen to one step.

    `state` is finished (nothing to do), interrupted (it resumes), new, or waits (what it reads is not
    written yet). `run_id` names the existing run.
    """

    step: Step
    state: PlannedState
    run_id: str | None


def run_recipe(
    loaded: LoadedRecipe,
    lake: Lake,
    *,
    force: bool = False,
    reporter: Reporter | None = None,
    on_summary: Callable[[StageSummary], None] | None = None,
) -> list[StageSummary]:
    """Run every stage of a recipe; a finished stage is not run again unless `force`.

    `on_summary` is called after each stage. An error in a stage stops the recipe; running it again resumes.
    """
    summaries: list[StageSummary] = []
    tiny = loaded.recipe.tiny_models
    if tiny is not None:
        build_demo_models(Path(tiny.path), seed=tiny.seed, reporter=reporter)
    with use_settings(loaded.settings):
        for step in loaded.recipe.list_steps():
            config = _link_config(loaded.recipe, step, summaries)
            summary = step.load()(lake, config, force=force, reporter=reporter)
            summaries.append(summary)
            if on_summary:
                on_summary(summary)
    return summaries


def plan_recipe(loaded: LoadedRecipe, lake: Lake) -> list[PlannedStep]:
    """Find out for every stage whether it is finished, resumes, or is new; nothing is run or written.

    A stage that reads what an earlier one has not written yet, or needs a tiny model that does not exist
    yet, waits.
    """
    planned: list[PlannedStep] = []
    finished: list[StageSummary] = []
    tiny = loaded.recipe.tiny_models
    lacking = tiny is not None and not has_demo_models(Path(tiny.path), DemoModelsConfig(seed=tiny.seed))
    with use_settings(loaded.settings):
        for step in loaded.recipe.list_steps():
            waits = lacking and step.section != "ingest"
            if waits or any(plan.state != "finished" for plan in planned):
                planned.append(PlannedStep(step, "waits", None))
                continue
            plan = step.load().plan(lake, _link_config(loaded.recipe, step, finished))
            planned.append(PlannedStep(step, plan.state, plan.run_id))
            if plan.summary is not None:
                finished.append(plan.summary)
    return planned


def _link_config(recipe: Recipe, step: Step, summaries: list[StageSummary]) -> StageConfig:
    """Make a stage that reads another stage's set use the one that this recipe made."""
    index, made_by = recipe.find_maker(step), step.declaration.made_by
    if index is None or made_by is None:
        return step.config
    made = [summary.run_id for summary in summaries if summary.stage == made_by.stage]
    return step.config.model_copy(update={made_by.field: made[index]})
