"""What supervised fine-tuning takes: texts, steps, and memory on one device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlt_data.errors import UsageError
from rlt_data.training.common.memory import (
    ModelSize,
    estimate_pass,
    estimate_state,
    format_bytes,
    format_processes,
    format_sharded_total,
    format_total,
    read_weight_bytes,
)
from rlt_data.training.sft.config import OverLongPolicy, SftConfig

_FATES: Mapping[OverLongPolicy, str] = {
    "drop": "dropped",
    "keep": "kept whole",
    "next-best": "replaced by the next-best trace that fits, or dropped",
}


def count_steps(config: SftConfig, examples: int, *, world: int) -> int:
    """Count the optimizer steps on so many examples in so many processes.

    Raises `UsageError` for a number of epochs that is not above 0.
    """
    options: Mapping[str, Any] = config.trainer
    if int(options.get("max_steps", -1)) > 0:
        return int(options["max_steps"])
    batch = int(options.get("per_device_train_batch_size", 8)) * world
    accumulation = int(options.get("gradient_accumulation_steps", 1))
    batches = -(-examples // batch)
    per_epoch = max(1, -(-batches // accumulation))
    epochs = float(options.get("num_train_epochs", 3.0))
    if epochs <= 0:
        raise UsageError("num_train_epochs must be above 0", where="sft.trainer.num_train_epochs")
    return int(-(-per_epoch * epochs // 1))


@dataclass(frozen=True)
class ExampleCounts:
    """What the lake holds now: texts; their tokens where they are counted; and texts beyond the limit.

    `pending`: a stage of the recipe makes the examples first.
    """

    texts: int = 0
    tokens: int | None = None
    longest: int | None = None
    over_long: int = 0
    pending: bool = False


def count_work(
    config: SftConfig, options: Any, counts: ExampleCounts, *, world: int, context: int | None = None
) -> dict[str, str]:
    """Count texts, tokens and steps in so many processes, as lines of text.

    `options` is the `trl.SFTConfig`, `context` that of the model.
    """
    batch = options.per_device_train_batch_size * options.gradient_accumulation_steps * world
    rows, unit = counts.texts, "texts"
    lines = {"texts": "made by this recipe" if counts.pending else f"{counts.texts:,} in the lake now"}
    if counts.tokens is not None and counts.texts:
        lines["tokens"] = f"{counts.tokens:,} an epoch, the longest text {counts.longest:,}"
        if options.max_steps <= 0:
            lines["tokens in all"] = f"{round(counts.tokens * options.num_train_epochs):,}"
    if counts.over_long:
        lines["texts over the limit"] = f"{counts.over_long:,}: {_FATES[config.over_long]}"
    if config.packing:
        unit = "packed rows"
        budget = config.max_tokens or context
        rows = -(-counts.tokens // budget) if counts.tokens and budget else 0
        lines["packed rows"] = f"at least {rows:,}, of up to {budget:,} tokens" if rows else "not known yet"
    countable = rows or options.max_steps > 0
    steps = f"{count_steps(config, rows, world=world):,}" if countable else "depends on the examples"
    return {
        **lines,
        f"{unit} per step": f"{batch}, in {format_processes(world)}",
        "epochs": f"{options.num_train_epochs:g}" if options.max_steps <= 0 else "as many as the steps take",
        "optimizer steps": steps,
        "learning rate": f"{options.learning_rate:g}, {options.lr_scheduler_type.value}",
    }


def estimate_memory(config: SftConfig, options: Any, size: ModelSize, *, world: int) -> dict[str, str]:
    """Estimate what one device holds, as lines of text; empty where the longest text is unknown."""
    length = config.max_tokens or size.context
    if length is None:
        return {}
    weight = read_weight_bytes(config.trainer)
    state = estimate_state(size, weight=weight, lora=config.lora)
    # Padded or packed, each row of a batch is at most as long as the longest text.
    tokens = options.per_device_train_batch_size * length
    rest = estimate_pass(size, config.trainer, tokens=tokens, weight=weight)
    whole = sum(rest.values())
    lines = {
        "longest text": f"{length:,} tokens",
        **{f"memory: {name}": format_bytes(value) for name, value in {**state, **rest}.items()},
        "memory in all": format_total(sum(state.values()) + whole),
    }
    if world > 1 and config.lora is None:
        lines["memory in all, sharded"] = format_sharded_total(size, 0, whole, world=world)
    return lines
