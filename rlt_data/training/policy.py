"""The policy in training, lent to the reward as a plain model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rlt_data.errors import UsageError, require_module


def is_sharded(trainer: Any) -> bool:
    """Whether a TRL trainer spreads weights over processes (ZeRO-3, FSDP)."""
    if trainer.is_fsdp_enabled:
        return True
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    return plugin is not None and int(plugin.zero_stage) == 3


@contextmanager
def borrow_policy(trainer: Any, *, reference: bool = False) -> Iterator[Any]:
    """The model that a TRL trainer trains, or its reference, as a plain transformers model, weights whole.

    Raises `UsageError` where the trainer keeps no reference (beta = 0), or where its weights are spread
    over processes: the sampled tokens' log-probabilities serve there.
    """
    if is_sharded(trainer):
        raise UsageError(
            "the policy's weights are spread over processes, so the reward cannot run it",
            remedy="set teacher_side to sampled, and sample at the teacher's temperature, with k1 or k3",
        )
    model = trainer.accelerator.unwrap_model(trainer.model)
    adapted = hasattr(model, "get_base_model")
    if not reference:
        yield model.get_base_model() if adapted else model
        return
    if adapted:
        require_module("peft", "train")
        with model.disable_adapter():
            yield model.get_base_model()
        return
    if trainer.ref_model is None:
        raise UsageError(
            "the trainer keeps no reference policy, since beta is 0",
            remedy="set beta above 0, or teacher_side to policy",
        )
    yield trainer.accelerator.unwrap_model(trainer.ref_model)
