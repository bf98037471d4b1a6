"""The arithmetic of a training before it runs: how many completions, steps and tokens, and what memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlt_data.errors import require_module
from rlt_data.models import ModelIdentity
from rlt_data.training.grpo_config import GrpoConfig, list_options

# TRL's fused head holds the logits of so many positions at once.
_HEAD_ROWS = 256
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class ModelSize:
    """What memory estimates need of a model."""

    parameters: int
    vocabulary: int
    layers: int
    key_value_width: int
    hidden: int
    context: int | None


def measure_model(identity: ModelIdentity) -> ModelSize:
    """Count a model's parameters from its configuration, without its weights."""
    torch = require_module("torch", "train")
    transformers = require_module("transformers", "train")
    whole = identity.base or identity
    config = transformers.AutoConfig.from_pretrained(whole.require_directory(), local_files_only=True)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    text = config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return ModelSize(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocabulary=text.vocab_size,
        layers=text.num_hidden_layers,
        key_value_width=2 * head * (getattr(text, "num_key_value_heads", None) or text.num_attention_heads),
        hidden=text.hidden_size,
        context=getattr(text, "max_position_embeddings", None),
    )


def count_work(config: GrpoConfig, *, world: int) -> dict[str, str]:
    """The arithmetic of a GRPO training that needs no model, as lines for people."""
    options = list_options(config, Path(config.output), world=world)
    passes, micro = options["gradient_accumulation_steps"], options["per_device_train_batch_size"]
    completions = config.generations * config.generation_size
    return {
        "generations": f"{config.generations}, each {config.questions_per_step} questions x "
        f"{config.group_size} completions = {config.generation_size:,}",
        "optimiser steps": f"{config.steps}, {config.updates_per_generation} a generation",
        "passes": f"{passes} of {micro} completions a step, in each of {world} processes",
        "completions": f"{completions:,} in all, at most {completions * config.max_tokens:,} tokens",
        "longest text": f"{config.max_prompt_tokens + config.max_tokens:,} tokens "
        f"({config.max_prompt_tokens:,} prompt + {config.max_tokens:,} completion)",
        "checkpoints": f"every {config.save_every} steps, {config.keep_checkpoints} kept",
    }


def estimate_memory(
    config: GrpoConfig, teacher: ModelSize, students: Mapping[str, ModelSize], *, world: int
) -> dict[str, str]:
    """What a GRPO training holds, of one device and without sharding, as lines for people."""
    options = list_options(config, Path(config.output), world=world)
    micro, passes = options["per_device_train_batch_size"], options["gradient_accumulation_steps"]
    length = config.max_prompt_tokens + config.max_tokens
    weight = _weight_bytes(options)
    trained = teacher.parameters if config.lora is None else 0
    student_weight = _BYTES.get(config.student_dtype, weight)
    # With checkpointing the input of each layer is kept; without it about sixteen values a layer.
    held = 2 + teacher.layers if options.get("gradient_checkpointing", True) else 16 * teacher.layers
    cache = micro * passes * length * teacher.layers * teacher.key_value_width * weight
    memory = {
        "teacher's weights": teacher.parameters * weight,
        # AdamW: the gradient, and the first and second moment, in the precision of the weights.
        "gradients and optimiser": trained * weight * 3,
        "reference": teacher.parameters * weight if options.get("beta") and config.lora is None else 0,
        "students": sum(student.parameters for student in students.values()) * student_weight,
        "keys and values while generating": 0 if options.get("use_vllm") else cache,
        "logits of one chunk": _HEAD_ROWS * teacher.vocabulary * 4,
        "activations of one pass": micro * length * teacher.hidden * weight * held,
    }
    lines = {f"memory: {name}": write_bytes(size) for name, size in memory.items() if size}
    lines["memory in all"] = f"about {write_bytes(sum(memory.values()))} a device, unsharded"
    if options.get("use_vllm"):
        share = options.get("vllm_gpu_memory_utilization", 0.3)
        lines["memory: vLLM"] = f"{share:.0%} of the device, beside all this"
    return lines


def find_refusals(config: GrpoConfig, teacher: ModelSize) -> list[str]:
    """What would be refused at start although every single option is valid."""
    found = []
    longest = config.max_prompt_tokens + config.max_tokens
    if teacher.context is not None and longest > teacher.context:
        found.append(
            f"prompt and completion may take {longest:,} tokens, and the teacher reads {teacher.context:,}: "
            "lower grpo.max_prompt_tokens or grpo.max_tokens"
        )
    if config.trainer.get("sync_ref_model") and not config.trainer.get("beta"):
        found.append("sync_ref_model mixes a reference model, and without beta there is none: set beta")
    if config.trainer.get("sync_ref_model") and config.lora is not None:
        found.append("sync_ref_model needs a whole reference model, and LoRA keeps none: drop one of them")
    return found


def write_bytes(size: float) -> str:
    """Write a number of bytes for people, such as 13.2 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"


def _weight_bytes(options: Mapping[str, Any]) -> int:
    init = options.get("model_init_kwargs") or {}
    return _BYTES.get(str(init.get("dtype", "float32")).removeprefix("torch."), 4)
