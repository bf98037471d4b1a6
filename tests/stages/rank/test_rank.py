from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from small_lake import append_made, make_lake, make_question, make_score, make_trace, read_run

from rlt_data.errors import UsageError
from rlt_data.lake import Lake
from rlt_data.stages.rank import RankConfig, rank
from rlt_data.stages.rank.config import RankingReward
from rlt_data.stages.rank.filters import ends_in_loop

PLAIN = {"reward": {"alpha": 0.0}}


def test_traces_are_ordered_by_reward_and_the_best_is_selected(tmp_path: Path) -> None:
    lake, _ = make_lake(tmp_path, questions=2, samples=3, exact=0.1)
    summary = rank(lake, RankConfig.model_validate(PLAIN))
    rows = read_run(lake, "rankings", summary.run_id).sort("question_id", "rank")
    assert rows["trace_id"].to_list() == ["q0t0", "q0t1", "q0t2", "q1t0", "q1t1", "q1t2"]
    assert rows["selected"].to_list() == [True, False, False] * 2
    assert rows["reward"].to_list() == pytest.approx([-1.3, -2.3, -3.3] * 2)
    assert rows["group_mean"].to_list() == pytest.approx([-2.3] * 6)
    assert rows["group_spread"].to_list() == pytest.approx([2.0] * 6)
    assert set(rows["estimator"]) == {"full"}
    assert set(rows["policy"]) == {"best-of-n(1)"}
    assert (summary.rows_in, summary.rows_out, summary.extra["selected"]) == (6, 6, 2)
    assert summary.extra["estimators"] == {"full": 6}


def test_the_exact_divergence_ranks_where_it_was_stored_and_the_sampled_one_elsewhere(
    tmp_path: Path,
) -> None:
    lake = Lake(tmp_path / "lake")
    traces = [make_trace(q, s) for q in range(3) for s in range(2)]
    append_made(lake, "generate", "traces", traces)
    scores = [
        # The sampled log-ratio would prefer t1, the exact divergence prefers t0.
        make_score(traces[0], -1.0, exact=0.1, k1=0.5),
        make_score(traces[1], -1.0, exact=0.9, k1=-0.5),
        # One trace of q1 lacks the exact one: both are ranked by k1.
        make_score(traces[2], -1.0, exact=0.1, k1=0.5),
        make_score(traces[3], -1.0, exact=None, k1=-0.5),
        # One trace of q2 lacks teacher log-probabilities: both are ranked by r_SS.
        make_score(traces[4], -1.0, exact=None, k1=5.0),
        make_score(traces[5], -2.0, exact=None, k1=None),
    ]
    append_made(lake, "score", "scores", scores)
    summary = rank(lake, RankConfig.model_validate(PLAIN))
    best = read_run(lake, "rankings", summary.run_id).filter("selected").sort("question_id")
    assert best["trace_id"].to_list() == ["q0t0", "q1t1", "q2t0"]
    assert best["estimator"].to_list() == ["full", "k1", None]
    assert best["reward"].to_list() == pytest.approx([-1.3, 0.5, -1.0])
    assert summary.extra["estimators"] == {"full": 2, "k1": 2, "r_ss": 2}
    assert any("favors traces that the teacher itself finds unlikely" in note for note in summary.notes)

    forced = rank(lake, RankConfig.model_validate({"reward": {"alpha": 0.0, "estimator": "k1"}}))
    rows = read_run(lake, "rankings", forced.run_id)
    assert rows.filter(pl.col("question_id") == "q0").sort("rank")["trace_id"].to_list() == ["q0t1", "q0t0"]
    assert rows.filter(pl.col("question_id") == "q2")["trace_id"].to_list() == ["q2t0"]
    assert forced.extra["without_score"] == 1

    # A threshold compares all questions with each other, so one criterion ranks them all.
    across = rank(lake, RankConfig.model_validate({**PLAIN, "policy": "threshold(-1.5)"}))
    assert across.extra["estimators"] == {"r_ss": 6}

    with pytest.raises(UsageError, match="no trace has a reward by the estimator full"):
        rank(
            lake, RankConfig.model_validate({"reward": {"estimator": "full"}, "where": "question_id = 'q2'"})
        )


def test_lambda_alpha_and_penalty_change_the_order(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    traces = [make_trace(0, 0), make_trace(0, 1), make_trace(0, 2, state="missing_close")]
    append_made(lake, "generate", "traces", traces)
    scores = [
        make_score(traces[0], -2.0, exact=0.0),
        make_score(traces[1], -1.0, exact=1.0),
        make_score(traces[2], -1.5, exact=0.0),
    ]
    append_made(lake, "score", "scores", scores)

    def order(**settings: float) -> list[str]:
        summary = rank(lake, RankConfig.model_validate({"reward": {**PLAIN["reward"], **settings}}))
        return read_run(lake, "rankings", summary.run_id).sort("rank")["trace_id"].to_list()

    assert order() == ["q0t0", "q0t2", "q0t1"]
    assert order(lambda_kl=0) == ["q0t1", "q0t0", "q0t2"]
    assert order(penalty=0) == ["q0t2", "q0t0", "q0t1"]


def test_the_newest_finished_score_of_a_trace_counts(tmp_path: Path) -> None:
    lake, traces = make_lake(tmp_path, questions=1, samples=2, exact=0.0)
    again = [
        make_score(t, -5.0 + t["sample_index"], exact=0.0, label="b", temperature_student=1.0) for t in traces
    ]
    append_made(lake, "score", "scores", again, label="later")
    unfinished = [make_score(t, -9.0 - t["sample_index"], exact=0.0, label="c") for t in traces]
    append_made(lake, "score", "scores", unfinished, label="unfinished", finish=False)

    summary = rank(lake, RankConfig.model_validate(PLAIN))
    rows = read_run(lake, "rankings", summary.run_id).sort("rank")
    assert rows["score_id"].to_list() == ["q0t1-student-b", "q0t0-student-b"]
    assert any("4 scores were superseded" in note for note in summary.notes)

    older = rank(lake, RankConfig.model_validate({**PLAIN, "where_scores": "temperature_student < 1"}))
    assert read_run(lake, "rankings", older.run_id).sort("rank")["trace_id"].to_list() == ["q0t0", "q0t1"]


def test_traces_scored_under_different_settings_are_compared_with_a_warning(tmp_path: Path) -> None:
    lake, _ = make_lake(tmp_path, questions=1, samples=1, exact=0.0)
    later = make_trace(0, 1)
    append_made(lake, "generate", "traces", [later], label="later")
    append_made(
        lake, "score", "scores", [make_score(later, -1.0, exact=0.0, temperature_student=1.0)], label="later"
    )
    summary = rank(lake, RankConfig())
    assert any("different temperature_student: 0.7, 1.0" in note for note in summary.notes)


def test_a_teacher_that_did_not_write_the_trace_is_noted(tmp_path: Path) -> None:
    lake, traces = make_lake(tmp_path, questions=1, samples=2, exact=0.0)
    assert not any("did not write" in note for note in rank(lake, RankConfig()).notes)
    other = [make_score(traces[0], -1.0, exact=0.0, label="b", teacher_revision="xyz")]
    append_made(lake, "score", "scores", other, label="other")
    assert any("1 traces are ranked by their divergence" in note for note in rank(lake, RankConfig()).notes)
    assert not any(
        "did not write" in note for note in rank(lake, RankConfig(reward=RankingReward(lambda_kl=0))).notes
    )


def test_traces_without_a_score_are_counted_and_named(tmp_path: Path) -> None:
    lake, _ = make_lake(tmp_path, questions=1, samples=2, exact=0.0)
    append_made(lake, "generate", "traces", [make_trace(0, 7)], label="later")
    summary = rank(lake, RankConfig())
    assert summary.extra["without_score"] == 1
    assert any("q0t7" in note for note in summary.notes)
    assert summary.rows_in == 3
    assert summary.rows_out == 2

    drawn = rank(lake, RankConfig(policy="random(3)"))
    assert drawn.rows_out == 3, "the random baseline needs no score"


def test_random_works_before_anything_was_scored(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    append_made(lake, "generate", "traces", [make_trace(0, s) for s in range(4)])
    summary = rank(lake, RankConfig(policy="random(2)"))
    rows = read_run(lake, "rankings", summary.run_id)
    assert (rows.height, rows["selected"].sum(), rows["reward"].null_count()) == (4, 2, 4)
    with pytest.raises(UsageError, match="no selected trace has a score"):
        rank(lake, RankConfig())


def test_several_students_rank_each_or_together(tmp_path: Path) -> None:
    lake, traces = make_lake(tmp_path, questions=1, samples=2, exact=0.0)
    second = [make_score(t, -4.0 + 2 * t["sample_index"], student="other", exact=0.0) for t in traces]
    append_made(lake, "score", "scores", second, label="other")

    def best(**settings: object) -> dict[str, tuple[str, float]]:
        summary = rank(lake, RankConfig.model_validate({**PLAIN, **settings}))
        rows = read_run(lake, "rankings", summary.run_id).filter("selected")
        return {row["student"]: (row["trace_id"], row["reward"]) for row in rows.to_dicts()}

    assert best() == {"student": ("q0t0", -1.0), "other": ("q0t1", -2.0)}
    assert best(students=["other"]) == {"other": ("q0t1", -2.0)}
    assert best(combine="mean") == {"mean(other, student)": ("q0t1", -2.0)}
    assert best(combine="minimum") == {"minimum(other, student)": ("q0t1", -2.0)}
    with pytest.raises(UsageError, match="no selected trace has a score by 'nobody'") as caught:
        best(students=["nobody"])
    assert "other, student" in str(caught.value.where)


def test_a_combined_ranking_needs_every_student(tmp_path: Path) -> None:
    lake, traces = make_lake(tmp_path, questions=1, samples=2, exact=0.0)
    append_made(
        lake, "score", "scores", [make_score(traces[1], -9.0, student="other", exact=0.0)], label="other"
    )
    summary = rank(lake, RankConfig(combine="mean"))
    assert read_run(lake, "rankings", summary.run_id)["trace_id"].to_list() == ["q0t1"]
    assert summary.extra["without_score"] == 1


def test_filters_compose_with_a_policy_and_count_what_they_drop(tmp_path: Path) -> None:
    lake = Lake(tmp_path / "lake")
    traces = [
        make_trace(0, 0, think="It is 15, so 15.\n\n"),
        make_trace(0, 1, state="missing_close", truncated=True),
        make_trace(0, 2, state="repeated_tags"),
        make_trace(0, 3, think="Add. " * 200),
        make_trace(0, 4),
    ]
    append_made(lake, "ingest", "questions", [make_question(0)])
    append_made(lake, "generate", "traces", traces)
    append_made(lake, "score", "scores", [make_score(t, -1.0 - t["sample_index"], exact=0.0) for t in traces])

    def best(*filters: str) -> str:
        summary = rank(
            lake, RankConfig.model_validate({"filters": filters, "reward": {"alpha": 0.0, "penalty": 0}})
        )
        return str(read_run(lake, "rankings", summary.run_id).filter("selected")["trace_id"].item())

    assert best() == "q0t0"
    assert best("correct") == "q0t1"
    assert best("correct", "complete") == "q0t2"
    assert best("correct", "closed", "no-loop") == "q0t4"
    summary = rank(lake, RankConfig(filters=("closed", "no-loop", "correct")))
    assert {k: v for k, v in summary.extra.items() if k.startswith("left_out")} == {
        "left_out_closed": 2,
        "left_out_no_loop": 1,
        "left_out_correct": 1,
    }


@pytest.mark.parametrize(
    ("text", "loops"),
    [
        ("so x = 2. " * 60, True),
        ("A long beginning. " + "e^{i\\pi/6} = " * 40 + "e^{i", True),
        ("no " * 20, False),
        ("".join(f"Step {i}: add {i * 7 % 13} and carry on with {i * i}.\n" for i in range(200)), False),
        ("So x = 2. " * 60 + "Therefore the answer is 2, after all of that.", False),
        ("", False),
    ],
    ids=["loop", "cut in a loop", "short", "steps", "recovered", "empty"],
)
def test_a_loop_is_one_passage_over_and_over_at_the_end(text: str, loops: bool) -> None:
    assert ends_in_loop(text) is loops


def test_where_narrows_the_traces(tmp_path: Path) -> None:
    lake, _ = make_lake(tmp_path, questions=2, samples=2, exact=0.0)
    summary = rank(lake, RankConfig(where="question_id = 'q1'"))
    assert set(read_run(lake, "rankings", summary.run_id)["question_id"]) == {"q1"}
    with pytest.raises(UsageError, match="not valid SQL"):
        rank(lake, RankConfig(where="no_such_column = 1"))


def test_a_ranking_is_made_once_and_again_when_there_are_new_scores(tmp_path: Path) -> None:
    lake, traces = make_lake(tmp_path, questions=1, samples=2, exact=0.0)
    first = rank(lake, RankConfig())
    again = rank(lake, RankConfig())
    assert (again.status, again.run_id) == ("already finished", first.run_id)
    assert rank(lake, RankConfig(verify_processes=1)).run_id == first.run_id
    other = rank(lake, RankConfig(policy="best-of-n(2)"))
    assert other.run_id != first.run_id
    append_made(lake, "score", "scores", [make_score(traces[0], -9.0, exact=0.0, label="b")], label="b")
    later = rank(lake, RankConfig())
    assert later.run_id not in (first.run_id, other.run_id)
    assert read_run(lake, "rankings", later.run_id).filter("selected")["trace_id"].item() == "q0t1"
    assert read_run(lake, "rankings", first.run_id).height == 2, "an older ranking stays"


def test_equal_rewards_are_noted(tmp_path: Path) -> None:
    lake, _ = make_lake(tmp_path, questions=2, samples=2, exact=0.0, quality=lambda q, s: -1.0)
    summary = rank(lake, RankConfig())
    assert any("in 2 questions all traces have the same reward" in note for note in summary.notes)
    assert read_run(lake, "rankings", summary.run_id).filter("selected")["trace_id"].sort().to_list() == [
        "q0t0",
        "q1t0",
    ]


def test_a_reward_that_is_nan_is_ignored(tmp_path: Path) -> None:
    lake, _ = make_lake(
        tmp_path,
        questions=1,
        samples=3,
        exact=0.0,
        quality=lambda q, s: [float("-inf"), float("nan"), -1.0][s],
    )
    summary = rank(lake, RankConfig())
    assert read_run(lake, "rankings", summary.run_id)["trace_id"].to_list() == ["q0t2"]
    assert summary.extra["without_score"] == 2


def test_a_combined_ranking_keeps_the_scores_of_its_students(tmp_path: Path) -> None:
    lake, traces = make_lake(tmp_path, questions=1, samples=2)
    rows = [make_score(trace, -1.0, student="other") for trace in traces]
    append_made(lake, "score", "scores", rows, label="other")
    summary = rank(lake, RankConfig(combine="mean"))
    ranked = read_run(lake, "rankings", summary.run_id)
    assert ranked.get_column("score_id").null_count() == ranked.height == 2
    scores = lake.table("scores").scan().collect()
    for trace_id, score_ids in ranked.select("trace_id", "score_ids").iter_rows():
        assert score_ids == sorted(scores.filter(pl.col("trace_id") == trace_id).get_column("score_id"))
    each = read_run(lake, "rankings", rank(lake, RankConfig()).run_id)
    assert each.get_column("score_ids").null_count() == each.height == 4


def test_limit_ranks_the_first_questions_whole(tmp_path: Path) -> None:
    lake, _ = make_lake(tmp_path, questions=3, samples=2)
    summary = rank(lake, RankConfig(limit=2))
    ranked = read_run(lake, "rankings", summary.run_id)
    assert summary.rows_in == ranked.height == 4
    assert sorted(set(ranked.get_column("question_id"))) == ["q0", "q1"]


def test_the_seed_decides_a_random_selection(tmp_path: Path) -> None:
    lake, _ = make_lake(tmp_path, questions=3, samples=4)
    drawn = rank(lake, RankConfig(policy="random(1)", seed=3))
    assert lake.run(drawn.run_id).config["policy"] == "random(1, seed=3)"
    assert rank(lake, RankConfig(policy="random(1, seed=3)")).status == "already finished"
    assert rank(lake, RankConfig(policy="random(1)", seed=4)).run_id != drawn.run_id
