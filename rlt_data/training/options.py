"""Options of TRL and PEFT, passed through from a recipe and checked against their own classes."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from rlt_data.errors import UsageError, require_module

# Options that this program sets itself, and the key of a recipe that decides each.
RESERVED = {
    "output_dir": "the recipe's output",
    "resume_from_checkpoint": "nothing: the same command goes on by itself",
    "overwrite_output_dir": "nothing: the same command goes on by itself",
    "seed": "the recipe's seed",
    "data_seed": "the recipe's seed",
    "shuffle_dataset": "the recipe's seed",
    "dataset_kwargs": "the conversation format",
    "completion_only_loss": "the conversation format",
    "assistant_only_loss": "the conversation format",
    "dataset_text_field": "the conversation format",
    "ignore_data_skip": "nothing: data order is kept over resumption",
    "load_best_model_at_end": "nothing: the last step's weights are the result",
    "push_to_hub": "nothing: publish the saved directory yourself",
    "disable_tqdm": "nothing: progress is this program's",
}
RESERVED_GRPO = {
    "max_steps": "grpo.steps",
    "num_train_epochs": "grpo.steps",
    "num_generations": "grpo.group_size",
    "generation_batch_size": "grpo.questions_per_step and grpo.group_size",
    "steps_per_generation": "grpo.questions_per_step, grpo.group_size and grpo.micro_batch_size",
    "per_device_train_batch_size": "grpo.micro_batch_size",
    "gradient_accumulation_steps": "grpo.questions_per_step, grpo.group_size and grpo.micro_batch_size",
    "max_completion_length": "grpo.max_tokens",
    "temperature": "grpo.temperature",
    "reward_weights": "the [reward] section",
}


def build_options(
    class_name: str,
    options: Mapping[str, Any],
    *,
    where: str,
    reserved: Mapping[str, str] | None = None,
    module: str = "trl",
    **fixed: Any,
) -> Any:
    """Build `module.class_name` from a recipe's options and from `fixed` ones, which they may not name.

    Raises `UsageError` for an unknown option (with the nearest right one), for one that this program sets
    itself (with the key that decides it), and for values that the class refuses, with its own words.
    """
    target = getattr(require_module(module, "train"), class_name)
    known = [field.name for field in dataclasses.fields(target) if field.init]
    for name in options:
        if reserved and name in reserved:
            raise UsageError(
                f"{name} is decided by {reserved[name]}", where=f"{where}.{name}", remedy="leave it out"
            )
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            raise UsageError(
                f"{module}.{class_name} has no option {name!r}",
                where=f"{where}.{name}",
                remedy=f"nearest: {', '.join(near)}" if near else f"see the reference of {class_name}",
            )
    try:
        return target(**{**options, **fixed})
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise UsageError(f"{module}.{class_name} refuses its options: {error}", where=where) from error
