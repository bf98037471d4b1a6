"""What `rlt-data rank` is told."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from rlt_data.errors import UsageError
from rlt_data.reward.estimators import Estimator
from rlt_data.reward.settings import RewardSettings
from rlt_data.stages.rank.filters import FilterName
from rlt_data.stages.rank.policies import parse_policy
from rlt_data.stages.runtime.contract import StageConfig


class RankConfig(StageConfig):
    """How traces are ranked and which of them are selected."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"verify_processes"})

    students: tuple[str, ...] = Field(
        (), description="Rank by the scores of this student; repeatable; unset: all."
    )
    combine: Literal["each", "mean", "minimum"] = Field(
        "each",
        description="Several students: a ranking for each, or one by the mean or the minimum of the rewards.",
    )
    policy: str = Field(
        "best-of-n(1)",
        description="What is selected: all, best-of-n(N), top-quantile(Q), top-quantile(Q, corpus), "
        "threshold(REWARD), or the baseline random(N, seed=S).",
    )
    filters: tuple[FilterName, ...] = Field(
        (),
        description="Traces that do not pass take no part: closed (thinking opened and closed once), "
        "complete (not cut off), no-loop (does not end repeating itself), correct (its own answer verifies); "
        "repeatable.",
    )
    estimator: Literal["auto", Estimator] = Field(
        "auto",
        description="Divergence that judges: auto takes the exact one where all traces compared have it.",
    )
    alpha: float = Field(
        0.01, ge=0, description="Weight of the worst solution token and the largest divergence."
    )
    lambda_kl: float = Field(3.0, ge=0, description="Weight of r_kl in the reward; 0 leaves r_ss alone.")
    penalty: float = Field(-1.0, le=0, description="Added to the reward of an explanation that never closes.")
    clip_logprob: float | None = Field(
        None, lt=0, description="Solution log-probabilities below this count as this, nats."
    )
    clip_kl: float | None = Field(
        None, gt=0, description="Divergences are held within plus and minus this, nats."
    )
    where: str | None = Field(None, description="SQL predicate over traces; others take no part.")
    where_scores: str | None = Field(None, description="SQL predicate over scores; others are not used.")
    verify_seconds: float = Field(5.0, gt=0, description="Time limit for checking one answer, seconds.")
    verify_processes: int | None = Field(
        None, ge=1, description="Processes that check answers; unset: the cores."
    )

    @field_validator("policy")
    @classmethod
    def _normalize(cls, policy: str) -> str:
        try:
            return str(parse_policy(policy))
        except UsageError as error:
            raise ValueError(f"{error.what}; {error.remedy}") from None

    def list_reward_settings(self, criterion: str) -> RewardSettings:
        """Return the reward settings under which `criterion` (full, k1, k3 or r_ss) judges."""
        return RewardSettings.model_validate(
            {
                "estimator": "k1" if criterion == "r_ss" else criterion,
                "lambda_kl": 0.0 if criterion == "r_ss" else self.lambda_kl,
                "alpha": self.alpha,
                "penalty": self.penalty,
                "clip_logprob": self.clip_logprob,
                "clip_kl": self.clip_kl,
            }
        )
