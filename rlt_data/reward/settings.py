"""Settings that turn stored token scores into a reward: estimator, weights, penalty, clipping."""

from __future__ import annotations

from pydantic import BaseModel, Field

from rlt_data.bounds import STRICT, ClipKl, Weight
from rlt_data.reward.estimators import ESTIMATORS, Estimator


class RewardWeights(BaseModel):
    """Weights that every reward has, whatever its divergence. Defaults: the paper's (arXiv 2506.08388)."""

    model_config = STRICT

    alpha: Weight = Field(
        0.01, description="Weight of the worst solution token and of the largest divergence."
    )
    lambda_kl: Weight = Field(3.0, description="Weight of r_kl in the reward; 0 leaves only r_ss.")
    penalty: float = Field(
        -1.0, ge=-1e6, le=0, description="Added to the reward of an explanation that never closes."
    )
    clip_logprob: float | None = Field(
        None,
        ge=-1e6,
        lt=0,
        description="Raise solution log-probabilities below this to it, in nats; unset: no clipping.",
    )
    clip_kl: ClipKl | None = Field(
        None,
        description="Clip divergences to plus and minus this, in nats; unset: no clipping.",
    )


class RewardSettings(RewardWeights):
    """Settings of the reward; all can be changed after scoring, from the stored token scores."""

    estimator: Estimator = Field(
        "k1",
        description="Per-token divergence of teacher from student: "
        + ", ".join(f"{name} ({definition.summary})" for name, definition in ESTIMATORS.items())
        + ".",
    )

    @property
    def needs_divergences(self) -> bool:
        """Whether the estimator needs the exact divergence, which scoring stores only with `exact`."""
        return ESTIMATORS[self.estimator].exact
