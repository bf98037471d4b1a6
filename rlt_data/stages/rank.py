"""Rank: order each question's traces by how much they help the student, and select some of them.

The sampled estimate k1 of the divergence is right for the policy gradient but favours traces that the
teacher itself finds unlikely; so the exact divergence judges wherever it was stored.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl
from pydantic import Field, field_validator

from rlt_data.errors import UsageError
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.progress import Reporter
from rlt_data.reward.settings import RewardSettings
from rlt_data.stages.filters import FilterName, filter_traces
from rlt_data.stages.judging import judge_traces, list_writers
from rlt_data.stages.policies import parse_policy, rank_traces
from rlt_data.stages.run import StageConfig, StageRun, StageSummary, open_run
from rlt_data.stages.selection import select_rows


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
    estimator: Literal["auto", "k1", "k3", "full"] = Field(
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
    def _normalise(cls, policy: str) -> str:
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


def rank(
    lake: Lake, config: RankConfig, *, force: bool = False, reporter: Reporter | None = None
) -> StageSummary:
    """Order the traces of each question by the students' rewards, and select some by a policy.

    The exact divergence judges where every trace of the question has it, else the sampled one, else (for
    traces without a teacher) r_ss alone; the row says which. Ties go by trace_id. Of several scores of one
    trace by one student, that of the newest finished run counts. Traces without a score are counted and
    named in the summary. Each run writes a whole new ranking; nothing is taken back.

    Raises `UsageError` for a student without scores and for a policy or selection that cannot be read.
    """
    policy = parse_policy(config.policy)
    score_runs = list_writers(lake, "scores")
    with open_run(
        lake,
        "rank",
        config,
        inputs=("traces", "scores"),
        pinned=("questions",),
        outputs=("rankings",),
        identity={"score_runs": score_runs},
        force=force,
        reporter=reporter,
    ) as run:
        if run.already_done:
            return run.summary
        columns = ["trace_id", "question_id", "state", "truncated", "teacher_revision"]
        candidates = select_rows(run, "traces", config.where).select(columns).collect()
        run.count(rows_in=candidates.height)
        kept = filter_traces(
            run,
            candidates,
            config.filters,
            seconds=config.verify_seconds,
            processes=config.verify_processes,
        )
        judged = judge_traces(run, config, policy, kept, score_runs)
        ranked = rank_traces(judged, policy)
        _sum_up(run, ranked)
        ids = [
            hash_content("ranking", run.run_id, trace, student)
            for trace, student in ranked.select("trace_id", "student").iter_rows()
        ]
        names = [name for name in lake.table("rankings").schema.arrow.names if name in ranked.columns]
        rows = ranked.select(names).with_columns(
            pl.Series("ranking_id", ids, dtype=pl.String), pl.lit(str(policy)).alias("policy")
        )
        with run.track("ranking", rows.height) as task:
            for part in rows.iter_slices(50_000):
                run.append("rankings", part)
                task.advance(part.height)
    return run.summary


def _sum_up(run: StageRun, ranked: pl.DataFrame) -> None:
    groups = ranked.unique(["student", "question_id"])
    run.count(
        questions=groups.height,
        selected=int(ranked.get_column("selected").sum()),
        truncated=int(ranked.get_column("truncated").sum()),
    )
    with_reward = ranked.filter(pl.col("reward").is_not_null())
    if not with_reward.height:
        return
    judged_by: dict[str, int] = dict(
        with_reward.group_by(pl.col("estimator").fill_null("r_ss")).len().sort("estimator").iter_rows()
    )
    run.summary.extra["judged_by"] = judged_by
    run.summary.extra["mean_spread"] = groups.get_column("group_spread").mean()
    flat = groups.filter((pl.col("group_spread") == 0) & (pl.col("group_size") > 1)).height
    if flat:
        run.note(f"in {flat} questions all traces have the same reward, so their order says nothing")
    if "k1" in judged_by:
        run.note(
            f"{judged_by['k1']} traces are ranked by the sampled divergence k1, which favours traces that "
            "the teacher itself finds unlikely; score with --exact to rank by the exact one"
        )
    if "r_ss" in judged_by:
        run.note(f"{judged_by['r_ss']} traces are ranked by r_ss alone, without a divergence")
