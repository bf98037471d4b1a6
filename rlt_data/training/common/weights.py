"""Weights of a model in training: sharded or whole, gathered for a checkpoint, used by a reward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import Any

from rlt_data.errors import UsageError, require_module


def is_sharded(trainer: Any) -> bool:
    """Whether a TRL trainer shards weights over processes (ZeRO-3, FSDP)."""
    if trainer.is_fsdp_enabled:
        return True
    plugin = getattr(trainer.accelerator.state, "deepspeed_plugin", None)
    return plugin is not None and int(plugin.zero_stage) == 3


def explain_coarse_weights(trainer: Any) -> str | None:
    """Explain that most updates would round to zero, where the weights' type is too coarse; None elsewhere.

    A weight of 0.02 in bfloat16 changes in steps of 1e-4, and AdamW changes it by about the learning rate.
    DeepSpeed updates a copy in float32.
    """
    trained = {str(p.dtype).removeprefix("torch.") for p in trainer.model.parameters() if p.requires_grad}
    if trained <= {"float32", "float64"} or trainer.is_deepspeed_enabled or trainer.args.learning_rate > 5e-5:
        return None
    return (
        f"weights are trained in {', '.join(sorted(trained))} without a copy in float32, and at a learning "
        f"rate of {trainer.args.learning_rate:g} most updates round to zero: leave dtype out of "
        "model_init_kwargs, train a LoRA adapter, or launch with DeepSpeed"
    )


@contextmanager
def borrow_policy(trainer: Any, *, reference: bool = False) -> Iterator[Any]:
    """Yield the model that a TRL trainer trains, or its reference, as a plain transformers model.

    Raises `UsageError` where the trainer keeps no reference (beta = 0), and where its weights are sharded:
    only the sampled tokens' log-probabilities can be used there.
    """
    if is_sharded(trainer):
        raise UsageError(
            "the policy's weights are sharded over processes, so the reward cannot run it",
            remedy="set teacher_logprobs to sampled, and sample at the teacher's temperature, with k1 or k3",
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
            "the trainer keeps no reference policy, because beta is 0",
            remedy="set beta above 0, or teacher_logprobs to policy",
        )
    yield trainer.accelerator.unwrap_model(trainer.ref_model)


def gather_weights(model: Any) -> dict[str, Any]:
    """Gather a model's whole weights on the CPU; call it in all processes where they are sharded."""
    with _gather(model):
        return {
            name: _make_whole(value.detach()).cpu().contiguous() for name, value in model.named_parameters()
        }


def scatter_weights(model: Any, weights: Mapping[str, Any]) -> None:
    """Write weights that `gather_weights` returned into a model; call it in all processes."""
    with _gather(model, writer=0):
        for name, parameter in model.named_parameters():
            parameter.data.copy_(_shard_like(weights[name], parameter.data))


def _gather(model: Any, writer: int | None = None) -> AbstractContextManager[Any]:
    """Gather a model's weights while the context is open, under ZeRO-3; the process `writer` changes them."""
    sharded = [parameter for parameter in model.parameters() if hasattr(parameter, "ds_id")]
    if not sharded:
        return nullcontext()
    # DeepSpeed marked the parameters, so it is installed.
    zero = import_module("deepspeed").zero
    context: AbstractContextManager[Any] = zero.GatheredParameters(sharded, modifier_rank=writer)
    return context


def _make_whole(value: Any) -> Any:
    """Return the whole tensor of one that FSDP2 shards."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _shard_like(value: Any, target: Any) -> Any:
    """Shard a whole tensor as `target` is sharded."""
    if not hasattr(target, "full_tensor"):
        return value
    tensor = require_module("torch.distributed.tensor", "train")
    return tensor.distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
