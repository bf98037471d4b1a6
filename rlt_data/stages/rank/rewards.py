"""The reward that each trace is ranked by, derived from its newest stored scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, assert_never

import polars as pl

from rlt_data.errors import UsageError
from rlt_data.reward.derive import derive_reward
from rlt_data.reward.estimators import RANKING_ORDER
from rlt_data.stages.rank.config import Criterion, RankConfig
from rlt_data.stages.rank.policies import Policy
from rlt_data.stages.runtime.run import StageRun
from rlt_data.stages.runtime.selection import select_rows

# Most accurate first; `r_ss` is the reward without a divergence.
CRITERIA: tuple[Criterion, ...] = (*RANKING_ORDER, "r_ss")
# Scores that differ in one of these are not of one kind.
SETTINGS = ("student_revision", "temperature_student", "temperature_teacher", "format", "dtype", "backend")


def reward_traces(
    run: StageRun, config: RankConfig, policy: Policy, traces: pl.DataFrame, score_runs: Sequence[str]
) -> pl.DataFrame:
    """Add `student`, `score_id`, `reward` and `estimator` to `traces`, with one row per trace and student.

    `traces` has `trace_id`, `question_id`, `truncated` and `teacher_revision`; `score_runs` are the
    finished scoring runs, the newest last. Traces without a reward are dropped and named in a note,
    unless the policy needs none.
    Raises `UsageError` where a student has no score, or no trace has the requested reward.
    """
    scores = _read_rewards(run, config, traces, score_runs)
    students = _choose_students(run, config, scores, policy)
    columns = traces.select(
        "trace_id", "question_id", "truncated", pl.col("teacher_revision").alias("writer_revision")
    )
    rewarded = pl.concat(
        columns.join(scores.filter(pl.col("student") == student), on="trace_id", how="left").with_columns(
            pl.lit(student).alias("student")
        )
        for student in students
    )
    rewarded = _choose_criterion(rewarded, policy, config)
    _note_settings(run, rewarded)
    _note_other_teachers(run, rewarded)
    if config.combine != "each" and len(students) > 1:
        rewarded = _combine(rewarded, config.combine, students)
    return _drop_unscored(run, rewarded, config) if policy.needs_rewards else rewarded


def _list_criteria(config: RankConfig) -> tuple[Criterion, ...]:
    if config.reward.lambda_kl == 0:
        return ("r_ss",)
    return CRITERIA if config.reward.estimator == "auto" else (config.reward.estimator,)


def _read_rewards(
    run: StageRun, config: RankConfig, traces: pl.DataFrame, score_runs: Sequence[str]
) -> pl.DataFrame:
    """Read the newest score of each trace by each student, with its reward under every criterion."""
    order = pl.DataFrame(
        {"run_id": list(score_runs), "_order": list(range(len(score_runs)))},
        schema={"run_id": pl.String, "_order": pl.Int64},
    )
    criteria = _list_criteria(config)
    rewards = [
        derive_reward(config.make_reward_settings(name))[-1].alias(f"reward_{name}") for name in criteria
    ]
    scores = select_rows(run, "scores", config.where_scores)
    if config.students:
        scores = scores.filter(pl.col("student").is_in(config.students))
    frame = (
        scores.join(traces.lazy().select("trace_id"), on="trace_id", how="semi")
        .join(order.lazy(), on="run_id", how="left")
        .select(
            "student",
            "trace_id",
            "score_id",
            "teacher_revision",
            pl.col("_order").fill_null(-1),
            *SETTINGS,
            *rewards,
        )
        .collect(engine="streaming")
        .sort("_order", "score_id", descending=[True, False])
    )
    unfinished = frame.filter(pl.col("_order") < 0).height
    if unfinished:
        run.note(f"{unfinished} scores come from runs that are not finished")
    newest = frame.unique(["student", "trace_id"], keep="first", maintain_order=True)
    if newest.height < frame.height:
        run.note(
            f"{frame.height - newest.height} scores were superseded: of several scores of one trace by one "
            "student, that of the newest finished run is used (select others with --where-scores)"
        )
    finite = [pl.when(pl.col(f"reward_{name}").is_finite()).then(f"reward_{name}") for name in criteria]
    return newest.with_columns(finite).drop("_order")


def _choose_students(run: StageRun, config: RankConfig, scores: pl.DataFrame, policy: Policy) -> list[str]:
    found = scores.get_column("student").unique().sort().to_list()
    absent = [name for name in config.students if name not in found]
    if found and not absent:
        return list(dict.fromkeys(config.students)) or found
    if not policy.needs_rewards:
        return list(dict.fromkeys(config.students)) or ["none"]
    every = run.read("scores").select(pl.col("student").unique()).collect().get_column("student").sort()
    who = f" by {', '.join(map(repr, absent))}" if absent else ""
    raise UsageError(
        f"no selected trace has a score{who}",
        where=f"students in scores: {', '.join(every) or 'none'}",
        remedy="score the traces first (rlt-data score --student NAME), or widen the selection",
    )


def _choose_criterion(rewarded: pl.DataFrame, policy: Policy, config: RankConfig) -> pl.DataFrame:
    """Choose for every trace the most accurate reward that all traces compared with it have."""
    criteria = _list_criteria(config)
    compared = [] if policy.compares_questions else ["question_id"]
    if config.combine == "each":
        compared.append("student")
    reward, estimator = pl.lit(None, dtype=pl.Float64), pl.lit(None, dtype=pl.String)
    unscored = pl.all_horizontal(pl.col(f"reward_{name}").is_null() for name in criteria)
    for name in reversed(criteria):
        has = pl.col(f"reward_{name}").is_not_null()
        # A requested estimator ranks every trace that has it; `auto` compares like with like.
        usable = has
        if len(criteria) > 1:
            usable = (has | unscored).all()
            usable = (usable.over(compared) if compared else usable) & has
        shown = pl.lit(None, dtype=pl.String) if name == "r_ss" else pl.lit(name)
        reward = pl.when(usable).then(f"reward_{name}").otherwise(reward)
        estimator = pl.when(usable).then(shown).otherwise(estimator)
    return rewarded.with_columns(reward.alias("reward"), estimator.alias("estimator"))


def _combine(
    rewarded: pl.DataFrame, how: Literal["mean", "minimum"], students: Sequence[str]
) -> pl.DataFrame:
    """Return one row per trace: the mean or the minimum of its rewards, where every student gives one."""
    rewards = pl.col("reward")
    match how:
        case "mean":
            combined = rewards.mean()
        case "minimum":
            combined = rewards.min()
        case never:
            assert_never(never)
    return rewarded.group_by("trace_id", "question_id", "truncated").agg(
        pl.when(rewards.is_not_null().all()).then(combined).alias("reward"),
        pl.col("estimator").first(),
        pl.lit(None, dtype=pl.String).alias("score_id"),
        pl.col("score_id").drop_nulls().sort().alias("score_ids"),
        pl.lit(f"{how}({', '.join(students)})").alias("student"),
    )


def _note_settings(run: StageRun, rewarded: pl.DataFrame) -> None:
    """Note in how many questions the compared traces were scored under different settings."""
    scored = rewarded.filter(pl.col("score_id").is_not_null())
    counts = scored.group_by("student", "question_id").agg(pl.col(SETTINGS).n_unique())
    for name in SETTINGS:
        mixed = counts.filter(pl.col(name) > 1).height
        if mixed:
            values = scored.get_column(name).unique().sort().to_list()
            run.note(
                f"in {mixed} questions the compared traces were scored with different {name}: "
                f"{', '.join(map(str, values[:4]))} (select some with --where-scores)"
            )


def _note_other_teachers(run: StageRun, rewarded: pl.DataFrame) -> None:
    """Note how many traces are ranked by their divergence from a model that did not write them."""
    others = rewarded.filter(
        pl.col("estimator").is_not_null()
        & pl.col("reward").is_not_null()
        & pl.col("writer_revision").ne_missing(pl.col("teacher_revision"))
    ).height
    if others:
        run.note(
            f"{others} traces are ranked by their divergence from a teacher that did not write them; the "
            "divergence from their own teacher is more accurate"
        )


def _drop_unscored(run: StageRun, rewarded: pl.DataFrame, config: RankConfig) -> pl.DataFrame:
    scored = rewarded.filter(pl.col("reward").is_not_null())
    if rewarded.height and not scored.height:
        raise UsageError(
            f"no trace has a reward by the estimator {config.reward.estimator}",
            where=f"{rewarded.height} traces; where {config.where!r}, where_scores {config.where_scores!r}",
            remedy="full needs scores made with --exact, k1 and k3 need a teacher; auto uses what is stored",
        )
    for (student,), part in rewarded.group_by("student", maintain_order=True):
        missing = part.filter(pl.col("reward").is_null()).get_column("trace_id").sort().to_list()
        if missing:
            run.count(without_score=len(missing))
            shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            run.note(f"{len(missing)} traces have no usable score by {student} and are not ranked: {shown}")
    return scored
