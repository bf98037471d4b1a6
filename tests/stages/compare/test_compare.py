"""Models compared on the same questions, from evaluations and grades in a lake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from evaluated_lake import append_evaluations, make_evaluation, make_grade, number_questions
from small_lake import append_made, read_run

from rlt_data.errors import UsageError
from rlt_data.lake import Lake
from rlt_data.stages.compare import CompareConfig, compare
from rlt_data.stages.runtime.contract import StageSummary

SEVEN = "c" * 7 + "w" * 23
SIX = "c" * 5 + "ww" + "c" + "w" * 22


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(tmp_path / "lake")


def run(
    lake: Lake, *models: str, **config: Any
) -> tuple[StageSummary, dict[tuple[str, str, bool], dict[str, Any]]]:
    """Compare; the rows by task, model, and whether it is a difference."""
    summary = compare(lake, CompareConfig(models=models, **config))
    rows = read_run(lake, "comparisons", summary.run_id).to_dicts()
    found = {(row["task"], row["model"], row["baseline"] is not None): row for row in rows}
    assert len(found) == len(rows)
    return summary, found


def test_seven_right_against_six(lake: Lake) -> None:
    append_evaluations(lake, "a", "aime24", number_questions(SEVEN))
    append_evaluations(lake, "b", "aime24", number_questions(SIX))
    summary, rows = run(lake, "b", "a")
    score, difference = rows["aime24", "a", False], rows["aime24", "a", True]
    assert set(rows) == {("aime24", "a", False), ("aime24", "b", False), ("aime24", "a", True)}
    assert (round(score["score_low"], 3), round(score["score_high"], 3)) == (0.118, 0.409)
    assert (score["questions"], score["samples"], score["method"]) == (30, 1.0, "wilson")
    assert (score["model_revision"], score["grader"]) == ("a-weights", "math 1")
    assert (difference["baseline"], difference["baseline_revision"]) == ("b", "b-weights")
    assert difference["difference"] == pytest.approx(1 / 30)
    assert difference["difference_low"] < 0 < difference["difference_high"]
    assert (difference["separated"], difference["samples_at_least"]) == (False, True)
    assert difference["samples_needed"] > 10
    assert difference["method"] == "newcombe; mcnemar, exact"
    (note,) = summary.notes
    assert "aime24: 7 right against 6 of 30 questions is no evidence that a and b differ" in note
    assert f"at least {difference['samples_needed']} samples a question would show it" in note


def test_the_first_model_is_the_baseline_unless_one_is_named(lake: Lake) -> None:
    for model, letters in (("a", "cccc"), ("b", "wwww"), ("c", "cwcw")):
        append_evaluations(lake, model, "t", number_questions(letters))
    _, rows = run(lake)
    assert {row["baseline"] for row in rows.values()} == {None, "a"}
    _, rows = run(lake, "a", "b", baseline="c")
    assert {row["baseline"] for row in rows.values()} == {None, "c"}
    assert {model for _, model, _ in rows} == {"a", "b", "c"}


def test_overall_is_over_the_tasks_of_all_models(lake: Lake) -> None:
    for task, a, b in (("t1", "cccw", "cwww"), ("t2", "cwww", "wwww")):
        append_evaluations(lake, "a", task, number_questions(a))
        append_evaluations(lake, "b", task, number_questions(b))
    append_evaluations(lake, "a", "t3", number_questions("cc"))
    summary, rows = run(lake, "b", "a")
    assert rows["overall", "a", False]["score"] == pytest.approx((0.75 + 0.25) / 2)
    assert rows["overall", "a", False]["grader"] is None
    difference = rows["overall", "a", True]
    assert difference["difference"] == pytest.approx((0.5 + 0.25) / 2)
    assert difference["questions"] == 8
    assert ("t3", "a", True) not in rows
    assert "t3: no graded evaluations of b" in summary.notes
    assert "overall is the mean over t1, t2, the tasks that all models have" in summary.notes
    _, rows = run(lake, "b", "a", tasks=["t1"])
    assert {task for task, _, _ in rows} == {"t1"}


def test_only_common_questions_enter_differences(lake: Lake) -> None:
    append_evaluations(lake, "a", "t", {"q1": "c", "q2": "w", "mine": "c"})
    append_evaluations(lake, "b", "t", {"q1": "w", "q2": "w", "yours": "c", "theirs": "c"})
    summary, rows = run(lake, "b", "a")
    difference = rows["t", "a", True]
    assert (difference["questions"], difference["left_out"]) == (2, 3)
    assert (difference["score"], difference["baseline_score"]) == (0.5, 0.0)
    assert rows["t", "a", False]["questions"] == 3
    assert (
        "t: 2 questions are compared; left out are 1 that only a has and 2 that only b has" in summary.notes
    )


def test_models_without_a_common_question_have_no_difference(lake: Lake) -> None:
    append_evaluations(lake, "a", "t", {"q1": "c"})
    append_evaluations(lake, "b", "t", {"q2": "c"})
    summary, rows = run(lake, "b", "a")
    assert not any(difference for _, _, difference in rows)
    assert "t: a and b have no question in common" in summary.notes


def test_different_prompts_and_sampling_are_named(lake: Lake) -> None:
    append_evaluations(lake, "a", "t", number_questions("cw"), prompt_hash="other", max_tokens=512)
    append_evaluations(lake, "b", "t", number_questions("cw"))
    summary, rows = run(lake, "b", "a")
    assert rows["t", "a", True]["settings_differ"] == "prompt_hash, max_tokens"
    assert (
        "t: a and b were not evaluated alike: a with prompt_hash other, max_tokens 512; b with prompt_hash "
        "prompt, max_tokens 1024" in summary.notes
    )


def test_the_newest_setting_counts(lake: Lake) -> None:
    append_evaluations(lake, "a", "t", number_questions("wwww"), temperature=0.0)
    append_evaluations(lake, "a", "t", number_questions("cccc"), temperature=1.0)
    summary, rows = run(lake, "a")
    assert rows["t", "a", False]["score"] == 1.0
    assert any(
        "t: a was evaluated under 2 settings, which differ in temperature; the newest is compared" in note
        for note in summary.notes
    )


def test_a_run_stands_for_its_setting(lake: Lake) -> None:
    old = append_evaluations(lake, "a", "t", number_questions("wwcc"), temperature=0.0)
    # More samples of the same setting, by another run.
    more = [make_evaluation("a", "t", f"q{i:03}", 1, temperature=0.0) for i in range(4)]
    append_made(lake, "evaluate", "evaluations", more, label="more")
    append_made(lake, "grade", "grades", [make_grade(row, "correct") for row in more], label="more")
    new = append_evaluations(lake, "a", "t", number_questions("cccc"), temperature=1.0)
    summary, rows = run(lake, old[:10], new)
    first, second = f"a ({old[:12]})", f"a ({new[:12]})"
    assert rows["t", first, False]["score"] == 0.75
    assert rows["t", first, False]["samples"] == 2.0
    assert rows["t", second, True]["difference"] == 0.25
    assert rows["t", second, True]["settings_differ"] == "temperature"
    assert any("that of the named run is compared" in note for note in summary.notes)


def test_of_several_completions_of_one_sample_the_newest_counts(lake: Lake) -> None:
    append_evaluations(lake, "a", "t", number_questions("ww"), seed=1)
    newer = [
        {**make_evaluation("a", "t", f"q{i:03}", 0, seed=2), "evaluation_id": f"new{i}"} for i in range(2)
    ]
    append_made(lake, "evaluate", "evaluations", newer, label="newer")
    append_made(lake, "grade", "grades", [make_grade(row, "correct") for row in newer], label="newer")
    summary, rows = run(lake, "a")
    assert (rows["t", "a", False]["score"], rows["t", "a", False]["samples"]) == (1.0, 1.0)
    assert any("2 completions of a were superseded" in note for note in summary.notes)


def test_unfinished_runs_are_noted_and_older_than_all_others(lake: Lake) -> None:
    append_evaluations(lake, "a", "t", number_questions("cc"))
    append_evaluations(lake, "a", "t", number_questions("ww"), temperature=0.0, finish=False)
    append_evaluations(lake, "b", "t", number_questions("cw"), finish=False)
    summary, rows = run(lake, "a", "b")
    assert rows["t", "a", False]["score"] == 1.0
    assert "t: some evaluations of b come from runs that are not finished" in summary.notes


def test_the_newest_grade_of_the_primary_grader_counts(lake: Lake) -> None:
    rows = [make_evaluation("a", "t", f"q{i}", 0) for i in range(2)]
    append_made(lake, "evaluate", "evaluations", rows)

    def grade(label: str, verdict: str, **columns: Any) -> None:
        append_made(lake, "grade", "grades", [make_grade(r, verdict, **columns) for r in rows], label=label)

    grade("old", "wrong")
    grade("new", "correct", grader_version="2")
    grade("text", "wrong", grader="text", primary=False)
    grade("last", "no_answer", extraction="last")
    summary, found = run(lake, "a")
    assert (found["t", "a", False]["score"], found["t", "a", False]["grader"]) == (1.0, "math 2")
    _, found = run(lake, "a", grader="text")
    assert (found["t", "a", False]["score"], found["t", "a", False]["grader"]) == (0.0, "text 1")
    _, found = run(lake, "a", extraction="last")
    assert (found["t", "a", False]["score"], found["t", "a", False]["extraction"]) == (0.0, "last")
    assert summary.notes == []


def test_completions_without_a_grade_are_left_out_and_counted(lake: Lake) -> None:
    append_evaluations(lake, "a", "t", number_questions("cw"))
    append_made(lake, "evaluate", "evaluations", [make_evaluation("a", "t", "q9", 0)], label="ungraded")
    summary, rows = run(lake, "a")
    assert rows["t", "a", False]["questions"] == 2
    assert summary.extra["without_grade"] == 1
    assert (
        "t: 1 completions of a have no grade with the extraction stated and are left out (rlt-data grade)"
        in summary.notes
    )


def test_truncated_and_failed_completions_are_noted(lake: Lake) -> None:
    append_evaluations(lake, "a", "t", number_questions("cttf"))
    summary, _ = run(lake, "a")
    assert "t: 2 of 4 completions of a were truncated" in summary.notes
    assert "t: 1 of 4 completions of a have the verdict failed and count as wrong" in summary.notes


def test_completions_of_several_origins_are_noted(lake: Lake) -> None:
    append_evaluations(lake, "a", "t", {"q1": "c"}, engine="torch 1", source="a.jsonl")
    append_evaluations(lake, "a", "t", {"q2": "w"}, engine="vllm 2", source="b.jsonl")
    summary, rows = run(lake, "a")
    assert rows["t", "a", False]["questions"] == 2
    assert "t: completions of a come from several engines: torch 1, vllm 2" in summary.notes
    assert "t: completions of a come from several sources: a.jsonl, b.jsonl" in summary.notes


def test_several_samples(lake: Lake) -> None:
    append_evaluations(lake, "a", "t", {f"q{i}": "cccw" for i in range(20)} | {"q": "wwww"})
    append_evaluations(lake, "b", "t", {f"q{i}": "cwww" for i in range(20)} | {"q": "wwww"})
    summary, rows = run(lake, "b", "a")
    difference = rows["t", "a", True]
    assert difference["separated"]
    assert difference["method"] == "bootstrap over questions; sign flips, exact"
    assert not difference["samples_at_least"]
    assert summary.notes[0].startswith("t: a is better than b: +47.6 points (95% interval +")


def test_where_narrows_the_evaluations(lake: Lake) -> None:
    append_evaluations(lake, "a", "t", number_questions("ccww"))
    _, rows = run(lake, "a", where="question_id in ('q000', 'q003')")
    assert (rows["t", "a", False]["questions"], rows["t", "a", False]["score"]) == (2, 0.5)


def test_the_result_does_not_depend_on_the_order_of_rows_and_repeats(lake: Lake) -> None:
    append_evaluations(lake, "a", "t", {f"q{i}": "cwcw"[: i % 4 + 1] for i in range(9)})
    append_evaluations(lake, "b", "t", {f"q{i}": "wwc"[: i % 3 + 1] for i in reversed(range(9))})
    first, rows = run(lake, "a", "b")
    again, same = run(lake, "a", "b")
    assert (again.status, again.run_id) == ("already finished", first.run_id)
    assert same == rows
    forced = compare(lake, CompareConfig(models=("a", "b")), force=True)
    keys = {"comparison_id", "run_id"}
    everything = lake.table("comparisons").scan().drop(keys).sort("task", "model", "baseline").collect()
    assert everything.unique().height * 2 == everything.height == 2 * len(rows)
    assert forced.run_id != first.run_id


def test_new_evaluations_make_a_new_comparison(lake: Lake) -> None:
    append_evaluations(lake, "a", "t", number_questions("cw"))
    first, _ = run(lake, "a")
    append_evaluations(lake, "a", "t", number_questions("cc"), temperature=1.0)
    second, rows = run(lake, "a")
    assert second.run_id != first.run_id
    assert rows["t", "a", False]["score"] == 1.0


@pytest.mark.parametrize(
    ("models", "message"),
    [
        (["modell"], "did you mean 'model'"),
        (["zzz"], "neither a model with evaluations nor the id of a run"),
    ],
)
def test_unknown_models_are_refused(lake: Lake, models: list[str], message: str) -> None:
    append_evaluations(lake, "model", "t", number_questions("cw"))
    with pytest.raises(UsageError, match=message):
        run(lake, *models)


def test_runs_without_evaluations_are_refused(lake: Lake) -> None:
    append_evaluations(lake, "a", "t", number_questions("cw"))
    (grading,) = [run.run_id for run in lake.runs() if run.stage == "grade"]
    with pytest.raises(UsageError, match="wrote no evaluations"):
        run(lake, grading)


def test_nothing_to_compare_is_refused(lake: Lake) -> None:
    with pytest.raises(UsageError, match="no model has been evaluated"):
        run(lake)
    append_evaluations(lake, "a", "t", number_questions("cw"))
    with pytest.raises(UsageError, match="no graded evaluations to compare"):
        run(lake, grader="integer")


@pytest.mark.parametrize(
    ("task", "remedy"), [("aime42", "did you mean 'aime24'?"), ("nosuch", "use one of: aime24, math")]
)
def test_a_task_without_evaluations_is_unknown(lake: Lake, task: str, remedy: str) -> None:
    for known in ("aime24", "math"):
        append_evaluations(lake, "a", known, number_questions("cw"))
    with pytest.raises(UsageError, match=f"no model was evaluated on the task '{task}'") as raised:
        run(lake, tasks=["math", task])
    assert raised.value.remedy == remedy


def test_rows_fit_the_table(lake: Lake) -> None:
    append_evaluations(lake, "a", "t", number_questions("cw"))
    run(lake)
    assert lake.table("comparisons").scan().collect().get_column("left_out").dtype == pl.Int32
