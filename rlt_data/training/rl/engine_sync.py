"""Proof that an engine inside training samples from the weights that are trained.

After each weight transfer the engine's log-probabilities of the sampled tokens are compared with the
trainer's. Where a transfer failed, in whole or in part, they differ far more than two kernels do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlt_data.errors import StageStoppedError

if TYPE_CHECKING:
    import torch


@dataclass
class SyncCheck:
    """Stops training where the mean absolute gap between engine and trainer exceeds `limit`, nats per token.

    bfloat16 kernels differ by 0.005 to 0.03 on average; weights of another step differ by more, and soon by
    much more. With `limit` None the gap is only measured. `gap` and `largest` are of the last comparison.
    """

    limit: float | None = 0.1
    gap: float = 0.0
    largest: float = 0.0

    def compare(self, output: dict[str, Any], *, step: int) -> None:
        """Compare the sampled and the recomputed log-probabilities of one generation, as TRL returns them.

        Raises `StageStoppedError` where the gap exceeds the limit, and where either is missing.
        """
        sampled = output.get("sampling_per_token_logps")
        trained = output.get("old_per_token_logps")
        if sampled is None or trained is None:
            if self.limit is None:
                return
            raise StageStoppedError(
                f"at step {step} engine or trainer returned no log-probabilities of the sampled tokens, so "
                "nothing checks that the engine has the trained weights",
                remedy="generate with transformers (use_vllm = false)",
            )
        mask = output["completion_mask"].bool() & sampled.isfinite()
        self.check((sampled - trained)[mask].abs(), step=step)

    def check(self, gaps: torch.Tensor, *, step: int) -> None:
        """Check absolute gaps, one per token. Raises `StageStoppedError` if their mean exceeds the limit."""
        if not gaps.numel():
            return
        self.gap, self.largest = float(gaps.mean()), float(gaps.max())
        if self.limit is not None and not self.gap <= self.limit:
            raise StageStoppedError(
                f"the engine does not sample from the weights that are trained: at step {step} its "
                f"log-probabilities differ from the trainer's by {self.gap:.3f} nats per token on average "
                f"({self.largest:.2f} at most, over {gaps.numel()} tokens)",
                remedy="generate with transformers (use_vllm = false), or find out why the weight transfer "
                "fails; a server needs --logprobs-mode processed_logprobs; where low precision, top_p, "
                "top_k or min_p explain the gap, raise sync_limit",
            )
