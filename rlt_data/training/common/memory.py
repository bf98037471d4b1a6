"""Estimates of the memory that a training takes on one device, from the shape of its models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlt_data.errors import require_module
from rlt_data.models import ModelIdentity
from rlt_data.models.registry import list_registry
from rlt_data.settings import Settings

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# TRL's fused head computes the logits of this many positions at a time.
_HEAD_ROWS = 256
# Input and output width of a layer's linear modules: h hidden, k keys and values, f feed-forward.
_LINEAR = {"q_proj": "hh", "k_proj": "hk", "v_proj": "hk", "o_proj": "hh"}
_LINEAR |= {"gate_proj": "hf", "up_proj": "hf", "down_proj": "fh"}


@dataclass(frozen=True)
class ModelSize:
    """The numbers of a model that memory depends on; `key_value_width` is of keys and values together."""

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


def find_registered_size(name: str, settings: Settings) -> ModelSize | None:
    """Find the size of a model in the registry, which needs no files; None where the registry lacks it."""
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


def estimate_state(size: ModelSize, *, weight: float, lora: Mapping[str, Any] | None) -> dict[str, float]:
    """Estimate the bytes of a model trained by AdamW: weights, gradients and two moments of what is trained.

    `weight` is the number of bytes of one weight.
    """
    if lora is None:
        return {
            "trained weights": size.parameters * weight,
            "gradients and optimizer": size.parameters * weight * 3,
        }
    # PEFT keeps adapters in float32.
    adapter = count_adapter_parameters(size, lora)
    return {"base weights": size.parameters * weight, "adapter and its optimizer": adapter * 4 * 4}


def estimate_pass(
    size: ModelSize, options: Mapping[str, Any], *, tokens: int, weight: float
) -> dict[str, float]:
    """Estimate the bytes of a forward and backward pass over so many tokens."""
    # Gradient checkpointing keeps the input of each layer; otherwise about sixteen values per layer are kept.
    kept = 2 + size.layers if options.get("gradient_checkpointing", True) else 16 * size.layers
    return {
        "logits of one chunk": _HEAD_ROWS * size.vocabulary * 4,
        "activations of one pass": tokens * size.hidden * weight * kept,
    }


def count_adapter_parameters(size: ModelSize, lora: Mapping[str, Any]) -> int:
    """Estimate the parameters of a LoRA adapter: rank times input and output width of each adapted module."""
    targets = lora.get("target_modules", "all-linear")
    chosen = _LINEAR if targets == "all-linear" or isinstance(targets, str) else targets
    widths = {"h": size.hidden, "k": size.key_value_width // 2, "f": size.feed_forward}
    ends = [end for name in chosen for end in _LINEAR.get(name, "")]
    return int(lora.get("r", 8)) * size.layers * sum(widths[end] for end in ends)


def read_weight_bytes(options: Mapping[str, Any]) -> int:
    """Return the bytes of one weight in the dtype of `model_init_kwargs`; float32 by default, as in TRL."""
    init = options.get("model_init_kwargs") or {}
    return DTYPE_BYTES.get(str(init.get("dtype", "float32")).removeprefix("torch."), 4)


def format_total(size: float) -> str:
    """Format the bytes that a device holds without sharding."""
    return f"about {format_bytes(size)} per device, unsharded"


def format_sharded_total(trained: ModelSize, reference: float, whole: float, *, world: int) -> str:
    """Format the bytes that a device holds where `trained` and `reference` are sharded and `whole` is not."""
    # Sharded training keeps float32 weights and moments beside weights and gradients: 16 bytes a parameter.
    share = (16 * trained.parameters + reference) / world
    return f"about {format_bytes(share + whole)} per device (ZeRO-3, FSDP)"


def format_processes(world: int) -> str:
    """Format a number of processes."""
    return f"{world} process" + ("es" if world > 1 else "")


def format_bytes(size: float) -> str:
    """Format a number of bytes with its unit, such as 13.2 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"
