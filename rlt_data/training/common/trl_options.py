"""Options of TRL and PEFT, passed through from a recipe and checked against their own classes."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rlt_data.errors import UsageError, require_module
from rlt_data.suggestions import suggest_name

_NO_EVALUATION = "nothing: evaluate the saved teacher by generate and score"
# Options that this program sets itself, and the key of a recipe that decides each.
RESERVED = {
    "output_dir": "the recipe's output",
    "resume_from_checkpoint": "nothing: the same command goes on by itself",
    "overwrite_output_dir": "nothing: the same command goes on by itself",
    "save_only_model": "nothing: a checkpoint holds all that going on needs",
    "remove_unused_columns": "nothing: the columns are those that training needs",
    "eval_strategy": _NO_EVALUATION,
    "eval_on_start": _NO_EVALUATION,
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
RESERVED_SFT = {
    "save_total_limit": "sft.keep_checkpoints",
    "max_length": "sft.max_tokens",
    "truncation_mode": "sft.max_tokens, over which a text is rejected",
    "packing": "nothing: each text is trained on by itself; padding_free spares the padding",
    "packing_strategy": "nothing: each text is trained on by itself",
    "eval_packing": _NO_EVALUATION,
    "chat_template_path": "the teacher's tokenizer",
    "eos_token": "the teacher's tokenizer and chat template",
}
RESERVED_GRPO = {
    "save_steps": "grpo.save_every",
    "save_total_limit": "grpo.keep_checkpoints",
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

# Options that decide where and how fast a training runs, and what is told of it, but not what is learned:
# with others of these a run that was cut off goes on, as after memory was short.
_NOT_DECIDING = re.compile(
    r"gradient_checkpointing(_kwargs)?|torch_empty_cache_steps|skip_memory_metrics|dataloader_\w+|ddp_\w+"
    r"|vllm_(gpu_memory_utilization|enable_sleep_mode|tensor_parallel_size|group_port|server_\w+)"
    r"|report_to|run_name|project|trackio_\w+|log_(level|level_replica|on_each_node|completions)"
    r"|num_completions_to_print|save_on_each_node"
)


def select_deciding(options: Mapping[str, Any]) -> dict[str, Any]:
    """Select the trainer's options that decide what is learned: those that make a run another run."""
    return {name: value for name, value in options.items() if not _NOT_DECIDING.fullmatch(name)}


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
    itself (with the key that decides it), for a value of another type than the class declares, and for
    values that the class refuses, with its own words.
    """
    target = getattr(require_module(module, "train"), class_name)
    known = [field.name for field in dataclasses.fields(target) if field.init]
    for name in options:
        if reserved and name in reserved:
            what = _explain_reserved(name, reserved[name])
            raise UsageError(what, where=f"{where}.{name}", remedy="leave it out")
        if name not in known:
            raise UsageError(
                f"{module}.{class_name} has no option {name!r}",
                where=f"{where}.{name}",
                remedy=suggest_name(name, known, otherwise=f"see the reference of {class_name}"),
            )
    for name, value in options.items():
        _check_value(target, name, value, where=f"{where}.{name}")
    try:
        return target(**{**options, **fixed})
    except (ValueError, TypeError, ImportError, RuntimeError, OSError) as error:
        raise UsageError(f"{module}.{class_name} refuses its options: {error}", where=where) from error


def build_lora(options: Mapping[str, Any] | None, *, where: str) -> Any:
    """Build the `peft.LoraConfig` of a recipe, None without one. Raises `UsageError` as `build_options`."""
    if options is None:
        return None
    return build_options("LoraConfig", {"task_type": "CAUSAL_LM", **options}, where=where, module="peft")


def _explain_reserved(name: str, decided_by: str) -> str:
    if decided_by.startswith("nothing: "):
        return f"{name} has no place in a recipe: {decided_by.removeprefix('nothing: ')}"
    return f"{name} is decided by {decided_by}"


def _check_value(target: Any, name: str, value: Any, *, where: str) -> None:
    """Refuse a value of another type than a dataclass declares, or a choice that it does not offer.

    It would take both without a word, and fail, or mean something else, hours later.
    """
    declared = typing.get_type_hints(target)[name]
    # A switch that became a choice, such as fsdp, still takes true and false; the class judges them.
    if isinstance(value, bool) and declared in (str, str | None):
        return
    try:
        TypeAdapter(declared).validate_python(value, strict=True)
    except ValidationError as error:
        kind = error.errors()[0]["msg"].removeprefix("Input ")
        raise UsageError(f"{name} {kind}, not {value!r}", where=where) from error
    choices = _read_choices(target, name) if declared is str else []
    if choices and value not in choices:
        raise UsageError(
            f"{name} offers no {value!r}",
            where=where,
            remedy=suggest_name(value, choices),
        )


def _read_choices(target: Any, name: str) -> list[str]:
    """The choices of a text option: those that it declares, or those that its own help text quotes."""
    (field,) = (field for field in dataclasses.fields(target) if field.name == name)
    if declared := field.metadata.get("choices"):
        return list(declared)
    quoted = dict.fromkeys(re.findall(r"[`'\"]([a-z][a-z_]*)[`'\"]", field.metadata.get("help", "")))
    return list(quoted) if field.default in quoted else []
