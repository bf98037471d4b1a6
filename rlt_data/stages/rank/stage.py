"""Rank: order each question's traces by how much they help the student, and select some of them.

The sampled estimate k1 of the divergence is right for the policy gradient but favors traces that the
teacher itself finds unlikely; so traces are ranked by the exact divergence wherever it was stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.stages.rank.config import RankConfig
from rlt_data.stages.rank.filters import filter_traces
from rlt_data.stages.rank.policies import parse_policy, rank_traces
from rlt_data.stages.rank.rewards import reward_traces
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.selection import limit_rows, list_finished_writers, select_rows
from rlt_data.stages.runtime.stage import stage

APPEND_ROWS = 50_000


@stage(RankConfig)
def rank(lake: Lake, config: RankConfig) -> Preparation:
    """Rank the traces of each question by the students' rewards, and select some by a policy.

    Traces are ranked by the exact divergence where every trace of the question has it, else by the sampled
    one, else (for traces without a teacher) by r_ss only; the row records which. Ties are broken by trace_id.
    Of several scores of one trace by one student, that of the newest finished run is used. Traces without a
    score are counted and named in the summary. Each run writes a whole new ranking.

    Raises `UsageError` for a student without scores and for a policy or selection that is not valid.
    """
    score_runs = list_finished_writers(lake, "scores")
    return Preparation(lambda run: _rank(run, config, score_runs), identity={"score_runs": score_runs})


def _rank(run: StageRun, config: RankConfig, score_runs: Sequence[str]) -> None:
    policy = parse_policy(config.policy)
    columns = ["trace_id", "question_id", "state", "truncated", "teacher_revision"]
    candidates = select_rows(run, "traces", config.where).select(columns)
    if config.limit is not None:
        questions = candidates.select("question_id").unique()
        first = limit_rows(questions, config.limit, key="question_id", order=["question_id"])
        candidates = candidates.join(first, on="question_id", how="semi")
    traces = candidates.collect()
    run.count(rows_in=traces.height)
    kept = filter_traces(
        run, traces, config.filters, seconds=config.verify_seconds, processes=config.verify_processes
    )
    ranked = rank_traces(reward_traces(run, config, policy, kept, score_runs), policy)
    _sum_up(run, ranked)
    ids = [
        hash_content("ranking", run.run_id, trace, student)
        for trace, student in ranked.select("trace_id", "student").iter_rows()
    ]
    names = [name for name in run.lake.table("rankings").schema.arrow.names if name in ranked.columns]
    rows = ranked.select(names).with_columns(
        pl.Series("ranking_id", ids, dtype=pl.String), pl.lit(str(policy)).alias("policy")
    )
    with run.track("rank", rows.height, "traces") as task:
        for part in rows.iter_slices(APPEND_ROWS):
            run.append("rankings", part)
            task.advance(part.height)


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
    estimators: dict[str, int] = dict(
        with_reward.group_by(pl.col("estimator").fill_null("r_ss")).len().sort("estimator").iter_rows()
    )
    run.summary.extra["estimators"] = estimators
    run.summary.extra["mean_spread"] = groups.get_column("group_spread").mean()
    flat = groups.filter((pl.col("group_spread") == 0) & (pl.col("group_size") > 1)).height
    if flat:
        run.note(f"in {flat} questions all traces have the same reward, so their order is arbitrary")
    if "k1" in estimators:
        run.note(
            f"{estimators['k1']} traces are ranked by the sampled divergence k1, which favors traces that "
            "the teacher itself finds unlikely; score with --exact to rank by the exact one"
        )
    if "r_ss" in estimators:
        run.note(f"{estimators['r_ss']} traces are ranked by r_ss only, without a divergence")
