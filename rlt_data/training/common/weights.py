"""Models in training: the policy lent to the reward, and weights whole where processes share them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import Any

from rlt_data.errors import UsageError, require_module


def is_sharded(trainer: Any) -> bool:
    """Whether a TRL trainer spreads weights over processes (ZeRO-3, FSDP)."""
    if trainer.is_fsdp_enabled:
        return True
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    return plugin is not None and int(plugin.zero_stage) == 3


def explain_coarse_weights(trainer: Any) -> str | None:
    """Say so where weights are too coarse for the learning rate: updates would round to nothing.

    A weight of 0.02 in bfloat16 moves in steps of 1e-4, and AdamW moves it by the learning rate. DeepSpeed
    updates a copy in float32.
    """
    trained = {str(p.dtype).removeprefix("torch.") for p in trainer.model.parameters() if p.requires_grad}
    if trained <= {"float32", "float64"} or trainer.is_deepspeed_enabled or trainer.args.learning_rate > 5e-5:
        return None
    return (
        f"weights are trained in {', '.join(sorted(trained))} with no copy in float32, and at a learning "
        f"rate of {trainer.args.learning_rate:g} most updates round to nothing: leave dtype out of "
        "model_init_kwargs, train a LoRA adapter, or launch with DeepSpeed"
    )


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


def read_weights(model: Any) -> dict[str, Any]:
    """Read a model's weights whole, on the CPU; called in all processes where they are spread."""
    with _gather(model):
        return {
            name: _make_whole(value.detach()).cpu().contiguous() for name, value in model.named_parameters()
        }


def write_weights(model: Any, weights: Mapping[str, Any]) -> None:
    """Write what `read_weights` read into a model, in all processes."""
    with _gather(model, writer=0):
        for name, parameter in model.named_parameters():
            parameter.data.copy_(_spread_like(weights[name], parameter.data))


def _gather(model: Any, writer: int | None = None) -> AbstractContextManager[Any]:
    """Have a model's weights whole for a while, under ZeRO-3; `writer` is the process that changes them."""
    spread = [parameter for parameter in model.parameters() if hasattr(parameter, "ds_id")]
    if not spread:
        return nullcontext()
    # DeepSpeed itself marked the parameters, so it is here.
    zero = import_module("deepspeed").zero
    context: AbstractContextManager[Any] = zero.GatheredParameters(spread, modifier_rank=writer)
    return context


def _make_whole(value: Any) -> Any:
    """A plain tensor of one that FSDP2 spreads."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _spread_like(value: Any, target: Any) -> Any:
    """A plain tensor spread as `target` is."""
    if not hasattr(target, "full_tensor"):
        return value
    tensor = require_module("torch.distributed.tensor", "train")
    return tensor.distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
