"""The arithmetic of a training before it runs: how many completions, steps and tokens, and what memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlt_data.errors import require_module
from rlt_data.models import ModelIdentity
from rlt_data.models.registry import list_registry
from rlt_data.settings import Settings
from rlt_data.training.rl.config import GrpoConfig, list_options

# TRL's fused head holds the logits of so many positions at once.
_HEAD_ROWS = 256
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_QUANTIZED = {"8bit": 1.0, "4bit": 0.5}
# In and out widths of a layer's linear parts: h hidden, k keys and values, f feed-forward.
_LINEAR = {"q_proj": "hh", "k_proj": "hk", "v_proj": "hk", "o_proj": "hh"}
_LINEAR |= {"gate_proj": "hf", "up_proj": "hf", "down_proj": "fh"}


@dataclass(frozen=True)
class ModelSize:
    """What memory estimates need of a model; `key_value_width` is of keys and values together."""

    parameters: int
    vocabulary: int
    layers: int
    key_value_width: int
    hidden: int
    feed_forward: int
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
        feed_forward=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        context=getattr(text, "max_position_embeddings", None),
    )


def find_known_size(name: str, settings: Settings) -> ModelSize | None:
    """The size of a model that is not on this machine, where the registry knows its shape."""
    for alias, entry in list_registry(settings).items():
        if name in (alias, entry.model) and entry.shape is not None:
            shape = entry.shape
            return ModelSize(
                parameters=round((entry.parameters or 0) * 1e9),
                vocabulary=shape["vocabulary"],
                layers=shape["layers"],
                key_value_width=2 * shape["hidden"] // shape["heads"] * shape["key_value_heads"],
                hidden=shape["hidden"],
                feed_forward=shape["feed_forward"],
                context=entry.context,
            )
    return None


def count_work(config: GrpoConfig, *, world: int) -> dict[str, str]:
    """The arithmetic of a GRPO training that needs no model, as lines for people."""
    options = list_options(config, Path(config.output), world=world)
    passes, micro = options["gradient_accumulation_steps"], options["per_device_train_batch_size"]
    completions = config.generations * config.generation_size
    return {
        "generations": f"{config.generations}, each {config.questions_per_step} questions x "
        f"{config.group_size} completions = {config.generation_size:,}",
        "optimiser steps": f"{config.steps}, {config.updates_per_generation} a generation",
        "passes": f"{passes} of {micro} completions a step, in each of {count_processes(world)}",
        "completions": f"{completions:,} in all, at most {completions * config.max_tokens:,} tokens",
        "longest text": f"{config.max_prompt_tokens + config.max_tokens:,} tokens "
        f"({config.max_prompt_tokens:,} prompt + {config.max_tokens:,} completion)",
        "checkpoints": f"every {config.save_every} steps, {config.keep_checkpoints} kept",
    }


def estimate_memory(
    config: GrpoConfig, teacher: ModelSize, students: Mapping[str, ModelSize], *, world: int
) -> dict[str, str]:
    """What a GRPO training holds on one device, as lines for people; with several processes, sharded too."""
    options = list_options(config, Path(config.output), world=world)
    micro, passes = options["per_device_train_batch_size"], options["gradient_accumulation_steps"]
    length = config.max_prompt_tokens + config.max_tokens
    weight = read_weight_bytes(options)
    student_weight = _QUANTIZED.get(config.student_quantization, _BYTES.get(config.student_dtype, weight))
    cache = micro * passes * length * teacher.layers * teacher.key_value_width * weight
    model = describe_state(teacher, weight=weight, lora=config.lora)
    reference = teacher.parameters * weight if options.get("beta") and config.lora is None else 0
    rest = {
        "students": sum(student.parameters for student in students.values()) * student_weight,
        "keys and values while generating": 0 if options.get("use_vllm") else cache,
        **describe_pass(teacher, options, tokens=micro * length, weight=weight),
    }
    lines = {
        f"memory: {name}": write_bytes(size)
        for name, size in {**model, "reference": reference, **rest}.items()
        if size
    }
    whole = sum(rest.values())
    lines["memory in all"] = sum_memory(sum(model.values()) + reference + whole)
    if world > 1 and config.lora is None:
        lines["memory in all, sharded"] = sum_sharded(teacher, reference, whole, world=world)
    if options.get("use_vllm"):
        share = options.get("vllm_gpu_memory_utilization", 0.3)
        lines["memory: vLLM"] = f"{share:.0%} of the device, beside all this"
    return lines


def sum_memory(size: float) -> str:
    """Write what a device holds without sharding."""
    return f"about {write_bytes(size)} a device, unsharded"


def sum_sharded(trained: ModelSize, reference: float, whole: float, *, world: int) -> str:
    """Write what a device holds where `trained` and the `reference` are spread, and `whole` bytes are not."""
    # Sharded training keeps float32 weights and moments beside weights and gradients: 16 bytes in all.
    share = (16 * trained.parameters + reference) / world
    return f"about {write_bytes(share + whole)} a device (ZeRO-3, FSDP)"


def count_processes(world: int) -> str:
    """Write a number of processes."""
    return f"{world} process" + ("es" if world > 1 else "")


def describe_state(size: ModelSize, *, weight: float, lora: Mapping[str, Any] | None) -> dict[str, float]:
    """Bytes of a model in training by AdamW: its weights, and gradient and two moments of what is trained."""
    if lora is None:
        return {
            "teacher's weights": size.parameters * weight,
            "gradients and optimiser": size.parameters * weight * 3,
        }
    # PEFT holds adapters in float32.
    adapter = count_adapter(size, lora)
    return {"teacher's weights": size.parameters * weight, "adapter and its optimiser": adapter * 4 * 4}


def describe_pass(
    size: ModelSize, options: Mapping[str, Any], *, tokens: int, weight: float
) -> dict[str, float]:
    """Bytes of a forward and backward pass over so many tokens."""
    # With checkpointing the input of each layer is kept; without it about sixteen values a layer.
    held = 2 + size.layers if options.get("gradient_checkpointing", True) else 16 * size.layers
    return {
        "logits of one chunk": _HEAD_ROWS * size.vocabulary * 4,
        "activations of one pass": tokens * size.hidden * weight * held,
    }


def count_adapter(size: ModelSize, lora: Mapping[str, Any]) -> int:
    """Parameters of a LoRA adapter, about: the rank times in and out width of every part that it adapts."""
    targets = lora.get("target_modules", "all-linear")
    chosen = _LINEAR if targets == "all-linear" or isinstance(targets, str) else targets
    widths = {"h": size.hidden, "k": size.key_value_width // 2, "f": size.feed_forward}
    ends = [end for name in chosen for end in _LINEAR.get(name, "")]
    return int(lora.get("r", 8)) * size.layers * sum(widths[end] for end in ends)


def write_bytes(size: float) -> str:
    """Write a number of bytes for people, such as 13.2 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"


def read_weight_bytes(options: Mapping[str, Any]) -> int:
    """Bytes of one weight in the type that `model_init_kwargs` names; float32, as TRL's, without one."""
    init = options.get("model_init_kwargs") or {}
    return _BYTES.get(str(init.get("dtype", "float32")).removeprefix("torch."), 4)
