"""Rank: order each question's traces by how much they help the student, and select some of them.

The sampled estimate k1 of the divergence is right for the policy gradient but favours traces that the
teacher itself finds unlikely; so the exact divergence judges wherever it was stored.
"""

from __future__ import annotations

import polars as pl

from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.progress import Reporter
from rlt_data.stages.rank.config import RankConfig
from rlt_data.stages.rank.filters import filter_traces
from rlt_data.stages.rank.policies import parse_policy, rank_traces
from rlt_data.stages.rank.rewards import judge_traces, list_writers
from rlt_data.stages.runtime.run import StageRun, StageSummary, open_run
from rlt_data.stages.runtime.selection import select_rows

__all__ = ["RankConfig", "rank"]


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
