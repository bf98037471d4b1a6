"""What a GRPO training takes: completions, steps and tokens, and memory on one device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rlt_data.training.common.memory import (
    DTYPE_BYTES,
    ModelSize,
    estimate_pass,
    estimate_state,
    format_bytes,
    format_processes,
    format_sharded_total,
    format_total,
    read_weight_bytes,
)
from rlt_data.training.rl.config import AnyGrpoConfig, GrpoConfig, GrpoTraining
from rlt_data.training.rl.options import list_options

_QUANTIZED_BYTES = {"8bit": 1.0, "4bit": 0.5}


def count_work(config: GrpoTraining, *, world: int) -> dict[str, str]:
    """Count completions, steps and tokens in so many processes, as lines of text; needs no model."""
    options = list_options(config, Path(config.output), world=world)
    passes, micro = options["gradient_accumulation_steps"], options["per_device_train_batch_size"]
    completions = config.generations * config.generation_size
    return {
        "generations": f"{config.generations}, each {config.questions_per_step} questions x "
        f"{config.group_size} completions = {config.generation_size:,}",
        "optimizer steps": f"{config.steps}, {config.updates_per_generation} per generation",
        "passes": f"{passes} of {micro} completions per step, in each of {format_processes(world)}",
        "completions": f"{completions:,} in all, at most {completions * config.max_tokens:,} tokens",
        "longest text": f"{config.max_prompt_tokens + config.max_tokens:,} tokens "
        f"({config.max_prompt_tokens:,} prompt + {config.max_tokens:,} completion)",
        "checkpoints": f"every {config.save_every} steps, {config.keep_checkpoints} kept",
    }


def estimate_memory(
    config: AnyGrpoConfig, trained: ModelSize, students: Mapping[str, ModelSize], *, world: int
) -> dict[str, str]:
    """Estimate what one device holds, as lines of text; for several processes also with sharded weights."""
    options = list_options(config, Path(config.output), world=world)
    micro, passes = options["per_device_train_batch_size"], options["gradient_accumulation_steps"]
    length = config.max_prompt_tokens + config.max_tokens
    weight = read_weight_bytes(options)
    cache = micro * passes * length * trained.layers * trained.key_value_width * weight
    model = estimate_state(trained, weight=weight, lora=config.lora)
    reference = trained.parameters * weight if options.get("beta") and config.lora is None else 0
    rest = {
        "students": sum(student.parameters for student in students.values())
        * _count_student_bytes(config, weight),
        "keys and values while generating": 0 if options.get("use_vllm") else cache,
        **estimate_pass(trained, options, tokens=micro * length, weight=weight),
    }
    lines = {
        f"memory: {name}": format_bytes(size)
        for name, size in {**model, "reference": reference, **rest}.items()
        if size
    }
    whole = sum(rest.values())
    lines["memory in all"] = format_total(sum(model.values()) + reference + whole)
    if world > 1 and config.lora is None:
        lines["memory in all, sharded"] = format_sharded_total(trained, reference, whole, world=world)
    if options.get("use_vllm"):
        share = options.get("vllm_gpu_memory_utilization", 0.3)
        lines["memory: vLLM"] = f"{share:.0%} of the device, in addition"
    return lines


def _count_student_bytes(config: AnyGrpoConfig, weight: float) -> float:
    """Return the bytes of one weight of the students that give the reward."""
    if not isinstance(config, GrpoConfig):
        return weight
    dtype = DTYPE_BYTES.get(config.student_dtype, weight)
    return _QUANTIZED_BYTES.get(config.student_quantization, dtype)
