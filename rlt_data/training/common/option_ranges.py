"""Ranges of the trainer's options that are numbers: TRL and torch check few of them, and those late."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from annotated_types import Ge, Gt, Le, Lt

from rlt_data.errors import UsageError
from rlt_data.validation import describe_range

_ABOVE_0, _FROM_0 = Gt(0), Ge(0)
_SHARE = (_FROM_0, Le(1))

RANGES: Mapping[str, tuple[Any, ...]] = {
    "learning_rate": (_ABOVE_0, Le(1)),
    "weight_decay": (_FROM_0, Le(100)),
    "adam_beta1": (_FROM_0, Lt(1)),
    "adam_beta2": (_FROM_0, Lt(1)),
    "adam_epsilon": (_ABOVE_0, Le(1)),
    "max_grad_norm": (_FROM_0, Le(1e9)),
    "warmup_steps": (_FROM_0, Le(1e9)),
    "warmup_ratio": _SHARE,
    "num_train_epochs": (_ABOVE_0, Le(1e6)),
    "max_steps": (Ge(-1), Le(1e9)),
    "per_device_train_batch_size": (Ge(1), Le(1e6)),
    "gradient_accumulation_steps": (Ge(1), Le(1e6)),
    "label_smoothing_factor": (_FROM_0, Lt(1)),
    "neftune_noise_alpha": (_FROM_0, Le(1e6)),
    "logging_steps": (_ABOVE_0, Le(1e9)),
    "save_steps": (_ABOVE_0, Le(1e9)),
    "dataloader_num_workers": (_FROM_0, Le(1024)),
    "router_aux_loss_coef": (_FROM_0, Le(1e6)),
    "top_p": (_ABOVE_0, Le(1)),
    "min_p": _SHARE,
    "repetition_penalty": (_ABOVE_0, Le(100)),
    "beta": (_FROM_0, Le(1e6)),
    "epsilon": (_FROM_0, Le(1e6)),
    "epsilon_high": (_FROM_0, Le(1e6)),
    "delta": (_FROM_0, Le(1e6)),
    "num_iterations": (Ge(1), Le(1e6)),
    "ref_model_mixup_alpha": _SHARE,
    "ref_model_sync_steps": (Ge(1), Le(1e9)),
    "top_entropy_quantile": _SHARE,
    "vllm_gpu_memory_utilization": (_ABOVE_0, Le(1)),
}


def check_range(name: str, value: Any, *, where: str) -> None:
    """Raise `UsageError` with the range of the option `name` where `value` is a number outside it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    rules = RANGES.get(name, ())
    if not math.isfinite(value) or not all(_keeps(rule, value) for rule in rules):
        raise UsageError(f"{name} should be {describe_range(rules)}, found {value}", where=where)


def _keeps(rule: Any, value: Any) -> bool:
    match rule:
        case Ge():
            return bool(value >= rule.ge)
        case Gt():
            return bool(value > rule.gt)
        case Le():
            return bool(value <= rule.le)
        case Lt():
            return bool(value < rule.lt)
        case _:
            raise TypeError(f"not a bound: {rule}")
