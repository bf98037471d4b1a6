"""Options of `rlt-data rank`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from rlt_data.bounds import Processes, Rows, Seconds, Seed
from rlt_data.errors import UsageError
from rlt_data.reward.estimators import Estimator
from rlt_data.reward.settings import RewardSettings, RewardWeights
from rlt_data.stages.rank.filters import FilterName
from rlt_data.stages.rank.policies import parse_policy
from rlt_data.stages.runtime.contract import FreeField, LaterRunField, Over, RunField, StageConfig

Criterion = Literal["r_ss", Estimator]
"""The reward used for ranking a trace: with an estimator of the divergence, or r_ss without one."""


class RankingReward(RewardWeights):
    """The reward used for ranking."""

    estimator: Literal["auto", Estimator] = Field(
        "auto",
        description="Divergence in the reward; auto: the exact one where all compared traces have it.",
    )


class RankConfig(StageConfig):
    """Which traces are ranked, by which reward, and which of them are selected."""

    students: RunField[tuple[str, ...]] = Field(
        (), description="Rank by the scores of this student; repeatable; unset: all."
    )
    combine: RunField[Literal["each", "mean", "minimum"]] = Field(
        "each",
        description="Several students: one ranking each, or one by the mean or minimum of their rewards.",
    )
    # Part of the policy's text, so it enters the fingerprint there.
    seed: FreeField[Seed] = Field(0, description="Seed of the policy random, where the policy gives none.")
    policy: RunField[str] = Field(
        "best-of-n(1)",
        description="Traces to select: all, best-of-n(N), top-quantile(Q), top-quantile(Q, corpus), "
        "threshold(REWARD), or the baseline random(N).",
    )
    filters: RunField[tuple[FilterName, ...]] = Field(
        (),
        description="Rank only traces that pass: closed (thinking opened and closed once), complete (not "
        "truncated), no-loop (does not end in repetition), correct (its own answer verifies); repeatable.",
    )
    reward: RunField[RankingReward] = Field(default_factory=RankingReward)
    where: RunField[Annotated[str | None, Over("traces")]] = Field(
        None, description="SQL predicate over traces: use only these."
    )
    where_scores: RunField[Annotated[str | None, Over("scores")]] = Field(
        None, description="SQL predicate over scores: use only these."
    )
    limit: LaterRunField[Rows | None] = Field(
        None, description="Rank only the first N questions, by question_id."
    )
    verify_seconds: RunField[Seconds] = Field(
        5.0, description="Time limit for checking one answer, in seconds."
    )
    verify_processes: FreeField[Processes | None] = Field(
        None, description="Number of processes that check answers; unset: one per core."
    )

    @field_validator("policy")
    @classmethod
    def _normalize(cls, policy: str, info: ValidationInfo) -> str:
        try:
            return str(parse_policy(policy, seed=info.data.get("seed", 0)))
        except UsageError as error:
            raise ValueError(f"{error.what}; {error.remedy}") from None

    def list_identity(self) -> dict[str, Any]:
        """Return what enters the fingerprint; the reward's settings by the names they had in version 0.1."""
        identity = super().list_identity()
        settings = identity.pop("reward")
        return {**identity, **settings}

    def make_reward_settings(self, criterion: Criterion) -> RewardSettings:
        """Return the settings of the reward that ranks by `criterion`."""
        weights = self.reward.model_dump(exclude={"estimator"})
        if criterion == "r_ss":
            return RewardSettings.model_validate({**weights, "lambda_kl": 0.0})
        return RewardSettings.model_validate({**weights, "estimator": criterion})
