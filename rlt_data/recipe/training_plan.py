"""What a training recipe would do, told without doing it: `--dry-run`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlt_data.errors import RltDataError
from rlt_data.lake import Lake
from rlt_data.models import resolve_model
from rlt_data.recipe.training import FRESH, LoadedTraining, TrainingRecipe
from rlt_data.settings import use_settings
from rlt_data.training.distributed import World
from rlt_data.training.estimate import (
    ModelSize,
    count_work,
    estimate_memory,
    find_refusals,
    measure_model,
)
from rlt_data.training.fresh import measure_fresh
from rlt_data.training.grpo_config import GrpoConfig, check_options
from rlt_data.training.warm_up import check_options as check_warm_up


def plan_training(loaded: LoadedTraining, lake: Lake) -> dict[str, Any]:
    """Resolve a recipe, do its arithmetic, and list what would be refused at start.

    Keys: `recipe` (every key with its value), `warm-up` and `grpo` (lines for people), `refused`
    (sentences). Nothing is run or written.
    """
    recipe = loaded.recipe
    refused: list[str] = []
    warm_lines: dict[str, str] = {}
    grpo_lines: dict[str, str] = {}
    with use_settings(loaded.settings):
        warm = recipe.make_warm_up()
        if warm is not None:
            options = _try(refused, lambda: check_warm_up(warm))
            if options is not None:
                warm_lines = {
                    "texts": f"up to {lake.table('traces').count():,} explanations in the lake now",
                    "texts a step": str(
                        options.per_device_train_batch_size
                        * options.gradient_accumulation_steps
                        * World().size
                    ),
                    "epochs": f"{options.num_train_epochs:g}"
                    if options.max_steps <= 0
                    else f"{options.max_steps} steps",
                    "learning rate": f"{options.learning_rate:g}, {options.lr_scheduler_type.value}",
                }
        grpo = recipe.make_grpo(recipe.name_model(recipe.teacher))
        if grpo is not None:
            _try(refused, lambda: check_options(grpo))
            grpo_lines = _try(refused, lambda: count_work(grpo, world=World().size)) or {}
            grpo_lines |= _try(refused, lambda: _describe_memory(recipe, grpo, refused)) or {}
    return {
        "recipe": recipe.model_dump(mode="json", exclude_none=True),
        "warm-up": warm_lines,
        "grpo": grpo_lines,
        "refused": list(dict.fromkeys(refused)),
    }


def _describe_memory(recipe: TrainingRecipe, grpo: GrpoConfig, refused: list[str]) -> dict[str, str]:
    teacher = _measure(recipe, recipe.teacher)
    students = {name: _measure(recipe, name) for name in recipe.students}
    refused += find_refusals(grpo, teacher)
    return estimate_memory(grpo, teacher, students, world=World().size)


def _measure(recipe: TrainingRecipe, name: str) -> ModelSize:
    if name == FRESH and recipe.fresh is not None:
        return measure_fresh(recipe.fresh)
    return measure_model(resolve_model(name, role="teacher", need="tokenizer"))


def _try(refused: list[str], act: Callable[[], Any]) -> Any:
    """Do something that may be refused; the refusal is kept as a sentence, and None returned."""
    try:
        return act()
    except RltDataError as error:
        refused.append(error.what + (f" ({error.where})" if error.where else ""))
        return None
