"""Options of TRL and PEFT that a recipe passes through, checked against the classes of TRL and PEFT."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rlt_data.errors import UsageError, require_module
from rlt_data.suggestions import suggest_name
from rlt_data.training.common.option_ranges import check_range

_NO_EVALUATION = "nothing: evaluate the saved model with generate and score"
# Options that this program sets, and the recipe key that decides each.
RESERVED = {
    "output_dir": "the recipe's output",
    "resume_from_checkpoint": "nothing: running the same command again resumes",
    "overwrite_output_dir": "nothing: running the same command again resumes",
    "save_only_model": "nothing: a checkpoint holds everything that resuming needs",
    "remove_unused_columns": "nothing: the dataset holds the columns that training needs",
    "eval_strategy": _NO_EVALUATION,
    "eval_on_start": _NO_EVALUATION,
    "seed": "the recipe's seed",
    "data_seed": "the recipe's seed",
    "shuffle_dataset": "the recipe's seed",
    "dataset_kwargs": "the conversation format",
    "completion_only_loss": "the conversation format",
    "assistant_only_loss": "the conversation format",
    "dataset_text_field": "the conversation format",
    "ignore_data_skip": "nothing: a resumed training keeps the order of the data",
    "load_best_model_at_end": "nothing: the result is the weights of the last step",
    "push_to_hub": "nothing: publish the saved directory yourself",
    "disable_tqdm": "nothing: rlt-data shows progress itself",
}
RESERVED_SFT = {
    "save_total_limit": "sft.keep_checkpoints",
    "max_length": "sft.max_tokens",
    "truncation_mode": "sft.max_tokens, beyond which a text is rejected",
    "packing": "sft.packing",
    "packing_strategy": "nothing: texts are packed whole",
    "eval_packing": _NO_EVALUATION,
    "chat_template_path": "the model's tokenizer",
    "eos_token": "the model's tokenizer and chat template",
    "average_tokens_across_devices": "nothing: the loss of a step is the mean over all of its labels",
    "dataloader_drop_last": "nothing: every text is learned from in every epoch",
    "auto_find_batch_size": "nothing: a step has the texts that the recipe states",
    "accelerator_config": "nothing: the order of texts does not depend on the processes",
}
RESERVED_GRPO = {
    "save_steps": "{section}.save_every",
    "save_total_limit": "{section}.keep_checkpoints",
    "max_steps": "{section}.steps",
    "num_train_epochs": "{section}.steps",
    "num_generations": "{section}.group_size",
    "generation_batch_size": "{section}.questions_per_step and {section}.group_size",
    "steps_per_generation": "{section}.micro_batch_size and the size of a step",
    "per_device_train_batch_size": "{section}.micro_batch_size",
    "gradient_accumulation_steps": "{section}.micro_batch_size and the size of a step",
    "max_completion_length": "{section}.max_tokens",
    "temperature": "{section}.temperature",
    "reward_weights": "{section}.reward",
}

# Options that decide where and how fast a training runs and what is reported, but not what is learned. An
# interrupted run resumes with other values of these, for example after it ran out of memory.
_NOT_DECIDING = re.compile(
    r"gradient_checkpointing(_kwargs)?|torch_empty_cache_steps|skip_memory_metrics|dataloader_\w+|ddp_\w+"
    r"|vllm_(gpu_memory_utilization|enable_sleep_mode|tensor_parallel_size|group_port|server_\w+)"
    r"|report_to|run_name|project|trackio_\w+|log_(level|level_replica|on_each_node|completions)"
    r"|num_completions_to_print|save_on_each_node"
)


def select_deciding(options: Mapping[str, Any]) -> dict[str, Any]:
    """Select the trainer's options that decide what is learned, and so belong to a run's identity."""
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
    """Build `module.class_name` from the options of a recipe, and `fixed` ones on top.

    Raises `UsageError` for an unknown option (naming the nearest one), for a `reserved` option (naming the
    key that decides it), for a value of another type than the class declares, for a number out of range, and
    for values that the class refuses (quoting its message).
    """
    target = getattr(require_module(module, "train"), class_name)
    names = [field.name for field in dataclasses.fields(target) if field.init]
    for name in options:
        if reserved and name in reserved:
            what = _explain_reserved(name, reserved[name])
            raise UsageError(what, where=f"{where}.{name}", remedy="remove it")
        if name not in names:
            raise UsageError(
                f"{module}.{class_name} has no option {name!r}",
                where=f"{where}.{name}",
                remedy=suggest_name(name, names, otherwise=f"see the reference of {class_name}"),
            )
    for name, value in options.items():
        _check_value(target, name, value, where=f"{where}.{name}")
        check_range(name, value, where=f"{where}.{name}")
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
        return f"{name} is not an option of a recipe: {decided_by.removeprefix('nothing: ')}"
    return f"{name} is decided by {decided_by}"


def _check_value(target: Any, name: str, value: Any, *, where: str) -> None:
    """Refuse a value of another type than a dataclass declares, or a choice that it does not offer.

    The class would accept both, and fail or mean something else hours later.
    """
    declared = typing.get_type_hints(target)[name]
    # A switch that became a choice, such as fsdp, still accepts true and false; the class checks them.
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
            f"{name} has no choice {value!r}",
            where=where,
            remedy=suggest_name(value, choices),
        )


def _read_choices(target: Any, name: str) -> list[str]:
    """Read the choices of a text option: those that it declares, or those that its help text quotes."""
    (field,) = (field for field in dataclasses.fields(target) if field.name == name)
    if declared := field.metadata.get("choices"):
        return list(declared)
    quoted = dict.fromkeys(re.findall(r"[`'\"]([a-z][a-z_]*)[`'\"]", field.metadata.get("help", "")))
    return list(quoted) if field.default in quoted else []
