"""The options of `trl.GRPOConfig` that a GRPO configuration means."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlt_data.errors import UsageError
from rlt_data.training.common.distributed import World, choose_precision
from rlt_data.training.common.trl_options import RESERVED, RESERVED_GRPO, build_lora, build_options
from rlt_data.training.rl.config import GrpoTraining


def list_options(config: GrpoTraining, output: Path, *, world: int) -> dict[str, Any]:
    """List all options of `trl.GRPOConfig`: those of the recipe over this program's defaults.

    Raises `UsageError` where the completions of a generation do not divide into equal passes.
    """
    per_process, rest = divmod(config.generation_size, world)
    micro = config.micro_batch_size or per_process
    if rest or per_process % micro:
        raise UsageError(
            f"{config.questions_per_step} questions x {config.group_size} completions do not divide into "
            f"passes of {micro} in each of {world} processes",
            where=f"{config.section}.micro_batch_size",
            remedy="choose a divisor, or other numbers of questions and completions",
        )
    correction = config.trainer.get("vllm_importance_sampling_correction", True)
    if config.trainer.get("use_vllm") and config.sync_limit is not None and not correction:
        raise UsageError(
            "without vllm_importance_sampling_correction the trainer does not recompute the "
            "log-probabilities of what vLLM sampled, so nothing checks that vLLM has the trained weights",
            where=f"{config.section}.trainer.vllm_importance_sampling_correction",
            remedy="remove the option",
        )
    return {
        "logging_steps": 1,
        # Else the trainer logs the mean of earlier steps instead of a loss that is not finite.
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "save_strategy": "steps",
        **choose_precision(config.trainer),
        **config.trainer,
        "output_dir": str(output),
        "max_steps": config.steps,
        "num_generations": config.group_size,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": per_process // micro,
        "steps_per_generation": per_process // micro,
        "temperature": config.temperature,
        "max_completion_length": config.max_tokens,
        "save_steps": config.save_every,
        "save_total_limit": None,
        "seed": config.seed,
        "shuffle_dataset": False,
        "remove_unused_columns": False,
        "disable_tqdm": True,
    }


def check_options(config: GrpoTraining, *, world: int | None = None) -> Any:
    """Build the `trl.GRPOConfig` of a training, and check its LoRA options.

    Raises `UsageError` as `build_options` and `list_options` do.
    """
    section = config.section
    own = {**choose_precision(config.trainer), **config.trainer}
    reserved = {name: key.format(section=section) for name, key in RESERVED_GRPO.items()}
    build_options("GRPOConfig", own, where=f"{section}.trainer", reserved={**RESERVED, **reserved})
    build_lora(config.lora, where=f"{section}.lora")
    options = list_options(config, Path(config.output), world=world or World().size)
    return build_options("GRPOConfig", options, where=f"{section}.trainer")
