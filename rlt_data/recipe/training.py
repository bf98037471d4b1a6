"""Recipes that train a model: loaded from TOML, checked as a whole, and run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlt_data.errors import UsageError
from rlt_data.formats import Role, load_format
from rlt_data.lake import Lake
from rlt_data.progress import Reporter
from rlt_data.recipe.load import merge_settings, read_documents
from rlt_data.recipe.training_schema import FRESH, RECIPES, TrainingRecipe
from rlt_data.settings import ModelSettings, Settings, load_settings, use_settings
from rlt_data.stages.registry import find_stage
from rlt_data.stages.runtime.contract import StageSummary
from rlt_data.stages.runtime.stage import load_stage
from rlt_data.toml import validate_data
from rlt_data.training.common.distributed import World, end_training, train_alone
from rlt_data.training.common.saving import check_publishable, publish_model
from rlt_data.training.from_scratch.arithmetic_model import build_arithmetic_model
from rlt_data.training.sft.config import SftConfig


@dataclass(frozen=True)
class LoadedTraining:
    """A training recipe and the settings under which it runs."""

    recipe: TrainingRecipe
    settings: Settings

    @property
    def lake(self) -> str | None:
        """The lake of the recipe, else that of the user's settings."""
        return self.recipe.lake if self.recipe.lake is not None else self.settings.lake


def load_training(
    names: Sequence[str | Path], overrides: Sequence[str] = (), *, role: Role = "teacher"
) -> LoadedTraining:
    """Load and merge training recipes, then apply overrides such as `grpo.steps=10`.

    Raises `UsageError` for an unknown key (with file, line and the nearest valid key) and for a recipe of
    another role.
    """
    data, documents = read_documents(names, overrides)
    # The key of the model to start from is named after the role.
    for other in RECIPES:
        if other in data and role not in data:
            raise UsageError(
                f"this recipe trains a {other}",
                where=documents[0].name,
                remedy=f"rlt-data train-{other} RECIPE",
            )
    recipe = validate_data(RECIPES[role], data, documents)
    models = dict(recipe.models)
    if recipe.fresh is not None:
        models.setdefault(FRESH, ModelSettings(model=recipe.resolve_name(FRESH)))
    settings = merge_settings(models, recipe.formats, load_settings(), tasks=recipe.tasks)
    return LoadedTraining(recipe, settings)


def run_training_recipe(
    loaded: LoadedTraining,
    lake: Lake,
    *,
    force: bool = False,
    reporter: Reporter | None = None,
    on_summary: Callable[[StageSummary], None] | None = None,
) -> list[StageSummary]:
    """Run a training recipe; a finished training is not run again, and an interrupted one resumes.

    Where `accelerate launch` or `torchrun` started several processes, each of them calls this, and the main
    one alone reads and writes the lake. The trained model is `output`/teacher or `output`/student, by the
    recipe's role. Raises `UsageError`, before anything runs, where any section is invalid.
    """
    recipe = loaded.recipe
    summaries: list[StageSummary] = []

    def keep(summary: StageSummary) -> None:
        summaries.append(summary)
        if on_summary:
            on_summary(summary)

    with use_settings(loaded.settings):
        made = _share(lambda: _prepare(recipe, lake, reporter, keep))
        model = recipe.resolve_name(recipe.base)
        for step in recipe.list_steps():
            config = link_examples(step.make_config(model), made)
            model = _run(step.train, lake, config, force, reporter, keep)
        if World().is_main:
            publish_model(Path(model), recipe.result)
    return summaries


def check_result(recipe: TrainingRecipe) -> None:
    """Raise `UsageError` where the trained model would replace something that rlt-data did not publish.

    The model under that path must not be one that the recipe uses, either: the next training of the same
    recipe would start from another model.
    """
    check_publishable(recipe.result)
    for name in (recipe.base, *recipe.other_models):
        path = Path(recipe.models[name].model if name in recipe.models else name)
        if _find_location(path) == _find_location(recipe.result):
            raise UsageError(
                f"the trained model would replace {name!r}, which the recipe uses",
                where=str(recipe.result),
                remedy="set another output",
            )


def _find_location(path: Path) -> Path:
    """Return an absolute path, following all links but that of the last component."""
    return path.parent.resolve() / path.name


def link_examples(config: Any, made: dict[str, str]) -> Any:
    """Let a student's SFT learn from the examples that this recipe made, where it names no others."""
    if isinstance(config, SftConfig) and config.role == "student" and config.distillation is None:
        return config.model_copy(update={"distillation": made.get("substitute")})
    return config


def _prepare(
    recipe: TrainingRecipe, lake: Lake, reporter: Reporter | None, keep: Callable[[StageSummary], None]
) -> dict[str, str]:
    """Check the recipe and run the stages before the trainings; return the last run of each."""
    check_result(recipe)
    with train_alone():
        _check(recipe)
    if recipe.fresh is not None:
        build_arithmetic_model(Path(recipe.output) / FRESH, recipe.fresh, reporter)
    made: dict[str, str] = {}
    for name, config in recipe.list_data_configs():
        declaration = find_stage(name)
        made_by = declaration.made_by
        if made_by is not None and getattr(config, made_by.field) is None:
            config = config.model_copy(update={made_by.field: made.get(made_by.stage)})
        summary = load_stage(declaration)(lake, config, reporter=reporter)
        made[name] = summary.run_id
        keep(summary)
    return made


def _check(recipe: TrainingRecipe) -> None:
    """Check every section, so that an invalid one is not found after others have run for hours."""
    load_format(recipe.format)
    for step in recipe.list_steps():
        step.check(step.make_config(recipe.resolve_name(recipe.base)))


def _run(
    train: Callable[..., StageSummary],
    lake: Lake,
    config: Any,
    force: bool,
    reporter: Reporter | None,
    keep: Callable[[StageSummary], None],
) -> str:
    """Run a training in every process; return, in every process, the model that it made."""
    summary = train(lake, config, force=force, reporter=reporter)
    if World().is_main:
        keep(summary)
    end_training()
    return str(_share(lambda: summary.extra["model"]))


def _share(make: Callable[[], Any]) -> Any:
    """Compute a plain value in the main process and return it in all."""
    world = World()
    if not world.is_main:
        return world.receive()
    try:
        value = make()
        world.send(value)
        return value
    finally:
        world.fail()
