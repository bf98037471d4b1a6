"""Stop a training whose loss or weights are not finite: it learns nothing more, and its model is useless."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlt_data.errors import StageStoppedError, require_module
from rlt_data.training.common.callbacks import Callback

# What torch says where probabilities are not finite, as after such an update.
_NO_PROBABILITIES = "probability tensor contains"


class DivergenceCallback(Callback):
    """Raises `StageStoppedError` after a step whose weights or loss are infinite or NaN."""

    def __init__(self, where: str) -> None:
        self.where = where

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **values: Any) -> None:
        """Check the trained weights, before they enter a checkpoint."""
        if model is not None and not _are_finite(model):
            raise explain_divergence("the weights", f"{self.where}, step {state.global_step}")

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **values: Any
    ) -> None:
        """Check the loss of one logging step."""
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(float(loss)):
            raise explain_divergence("the loss and its gradients", f"{self.where}, step {state.global_step}")


@contextmanager
def explain_sampling(where: str) -> Iterator[None]:
    """Raise `StageStoppedError` where torch cannot sample from a diverged model."""
    try:
        yield
    except RuntimeError as error:
        if _NO_PROBABILITIES not in str(error):
            raise
        raise explain_divergence("the probabilities of the next token", where) from error


def check_saved_weights(directory: Path, where: str) -> None:
    """Raise `StageStoppedError` where a saved model has a weight that is infinite or NaN."""
    torch_format = require_module("safetensors", "train")
    for file in sorted(directory.glob("*.safetensors")):
        with torch_format.safe_open(file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 - not a mapping
                tensor = weights.get_tensor(name)
                if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                    raise explain_divergence(f"the weights {name}", where)


def explain_divergence(what: str, where: str) -> StageStoppedError:
    """Describe a training that diverged; `what`, in the plural, is not finite."""
    return StageStoppedError(
        f"the training diverged: {what} are not finite numbers; no model was published",
        where=where,
        remedy="lower learning_rate, or raise warmup_steps, or clip gradients (max_grad_norm = 1.0)",
    )


def _are_finite(model: Any) -> bool:
    torch = require_module("torch", "train")
    found = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            # Of sharded weights, the part in this process.
            local = parameter.to_local() if hasattr(parameter, "to_local") else parameter
            found.append(local.detach().isfinite().all())
    by_device = {flag.device: [one for one in found if one.device == flag.device] for flag in found}
    return all(bool(torch.stack(flags).all()) for flags in by_device.values())
