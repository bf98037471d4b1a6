"""Metrics, against values computed by hand and against what must hold for any completions."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.tasks.metrics import (
    VERDICTS,
    compute_majority,
    compute_pass_at_k,
    list_ks,
    score_questions,
    summarize_task,
)

SCHEMA = {
    "question_id": pl.String,
    "sample_index": pl.Int32,
    "verdict": pl.String,
    "extracted_answer": pl.String,
    "truncated": pl.Boolean,
    "options": pl.List(pl.String),
    "answer": pl.String,
    "completion_tokens": pl.Int32,
    "engine": pl.String,
}


def make_rows(questions: dict[str, str], **columns: Any) -> pl.DataFrame:
    """Rows of questions; each letter is a sample: correct, wrong, no answer, truncated or unclosed."""
    verdicts = {"c": "correct", "w": "wrong", "n": "no_answer", "t": "truncated", "u": "unclosed_think"}
    rows = [
        {
            "question_id": question,
            "sample_index": index,
            "verdict": verdicts[letter],
            "extracted_answer": {"c": "14", "w": "15"}.get(letter),
            "truncated": letter == "t",
            "answer": "14",
            "completion_tokens": 10,
            "engine": "torch 1",
            **columns,
        }
        for question, letters in questions.items()
        for index, letter in enumerate(letters)
    ]
    return pl.DataFrame(rows, schema=SCHEMA)


COMPLETIONS = st.dictionaries(
    st.sampled_from(["q1", "q2", "q3", "q4", "q5"]),
    st.text("cwntu", min_size=1, max_size=8),
    min_size=1,
)


def test_one_sample_a_question() -> None:
    summary = summarize_task(make_rows({f"q{i}": "c" if i < 7 else "w" for i in range(30)}))
    assert (summary.questions, summary.completions, summary.k) == (30, 30, 1)
    assert (round(summary.score.low, 3), round(summary.score.high, 3)) == (0.118, 0.409)
    assert summary.score.method == "wilson"
    assert [(p.k, p.value) for p in summary.pass_at] == [(1, pytest.approx(7 / 30))]
    assert summary.majority == pytest.approx(7 / 30)


def test_several_samples_by_hand() -> None:
    rows = make_rows({"q1": "cccw", "q2": "cwwt", "q3": "nuut"})
    summary = summarize_task(rows)
    assert summary.score.value == pytest.approx((3 / 4 + 1 / 4 + 0) / 3)
    assert summary.score.method == "bootstrap over questions"
    values = {p.k: p.value for p in summary.pass_at}
    # q1: 1 - C(1,k)/C(4,k); q2: 1 - C(3,k)/C(4,k).
    assert values == {
        1: pytest.approx((3 / 4 + 1 / 4) / 3),
        2: pytest.approx((1 + (1 - 3 / 6)) / 3),
        4: pytest.approx(2 / 3),
    }
    assert summary.majority == pytest.approx((1 + 0 + 0) / 3)
    assert summary.verdicts == {
        "correct": 4,
        "wrong": 3,
        "no_answer": 1,
        "truncated": 2,
        "unclosed_think": 2,
    }
    assert list(summary.verdicts) == [verdict for verdict in VERDICTS if verdict in summary.verdicts]
    assert summary.truncated == 2
    assert (summary.low_bound, summary.high_bound) == (
        pytest.approx(1 / 3),
        pytest.approx((3 / 4 + 2 / 4 + 1 / 4) / 3),
    )
    assert (summary.completion_tokens, summary.engines) == (120, ("torch 1",))


def test_a_truncated_completion_with_an_answer_is_within_the_bounds() -> None:
    rows = make_rows({"q1": "c"}, truncated=True)
    summary = summarize_task(rows)
    assert (summary.low_bound, summary.score.value, summary.high_bound) == (0, 1, 1)


def test_fewer_predictions_than_configured_do_not_lower_pass_at_k() -> None:
    """Dividing by the configured number of samples made pass@1 fall as 1/n elsewhere."""
    rows = make_rows({"q1": "cccc", "q2": "c"})
    one, two, four = compute_pass_at_k(score_questions(rows), [1, 2, 4])
    assert (one.value, one.questions, one.left_out) == (1.0, 2, 0)
    assert (two.value, two.questions, two.left_out) == (1.0, 1, 1)
    assert (four.value, four.questions, four.left_out) == (1.0, 1, 1)
    (none,) = compute_pass_at_k(score_questions(rows), [5])
    assert (none.value, none.questions, none.left_out) == (None, 0, 2)


def test_pass_at_k_refuses_no_samples() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        compute_pass_at_k(score_questions(make_rows({"q1": "c"})), [0])


def test_pass_at_k_of_many_samples() -> None:
    rows = make_rows({"q1": "c" + "w" * 1999})
    assert [p.value for p in compute_pass_at_k(score_questions(rows), [1000])] == [pytest.approx(0.5)]


def test_ks() -> None:
    assert [list_ks(most) for most in (1, 2, 4, 10, 64)] == [
        [1],
        [1, 2],
        [1, 2, 4],
        [1, 2, 4, 8, 10],
        [1, 2, 4, 8, 16, 32, 64],
    ]


@given(st.integers(0, 7), st.integers(0, 7), st.integers(1, 7))
def test_pass_at_k_counts_the_subsets_with_a_correct_sample(correct: int, wrong: int, k: int) -> None:
    letters = "c" * correct + "w" * wrong
    if len(letters) < k:
        return
    subsets = list(combinations(letters, k))
    (found,) = compute_pass_at_k(score_questions(make_rows({"q": letters})), [k])
    assert found.value == pytest.approx(sum("c" in subset for subset in subsets) / len(subsets))


@given(COMPLETIONS, st.randoms())
def test_laws(questions: dict[str, str], random: Any) -> None:
    rows = make_rows(questions)
    summary = summarize_task(rows, resamples=100)
    assert summary.pass_at[0].value == pytest.approx(summary.score.value)
    assert summary.score.low <= summary.score.value <= summary.score.high
    assert summary.low_bound - 1e-9 <= summary.score.value <= summary.high_bound + 1e-9
    assert sum(summary.verdicts.values()) == summary.completions == rows.height
    assert 0 <= summary.majority <= 1
    every = [p for p in compute_pass_at_k(score_questions(rows), range(1, 9)) if p.left_out == 0]
    assert [p.value for p in every] == pytest.approx(sorted(p.value for p in every))  # type: ignore[type-var]
    order = list(range(rows.height))
    random.shuffle(order)
    assert summarize_task(rows[order], resamples=100) == summary


@pytest.mark.parametrize(
    ("answers", "verdicts", "expected"),
    [
        (["1", "1", "2"], ["correct", "correct", "wrong"], 1.0),
        (["1", "2", "2"], ["correct", "wrong", "wrong"], 0.0),
        (["1", "2"], ["correct", "wrong"], 0.5),
        (["1", "2", "3"], ["correct", "wrong", "wrong"], 1 / 3),
        ([None, None, "1"], ["no_answer", "truncated", "correct"], 1.0),
        ([None, None], ["no_answer", "unclosed_think"], 0.0),
        ([" 1", "1 ", "2"], ["correct", "correct", "wrong"], 1.0),
    ],
)
def test_majority(answers: list[str | None], verdicts: list[str], expected: float) -> None:
    rows = pl.DataFrame(
        [
            {"question_id": "q", "sample_index": i, "verdict": v, "extracted_answer": a, "truncated": False}
            for i, (a, v) in enumerate(zip(answers, verdicts, strict=True))
        ],
        schema=SCHEMA,
    )
    assert compute_majority(rows) == pytest.approx(expected)


def make_choices(chosen: list[str | None], right: list[str], options: list[list[str]]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "question_id": "q",
                "sample_index": i,
                "verdict": "no_answer" if c is None else "correct" if c == r else "wrong",
                "extracted_answer": c,
                "truncated": False,
                "answer": r,
                "options": o,
            }
            for i, (c, r, o) in enumerate(zip(chosen, right, options, strict=True))
        ],
        schema=SCHEMA,
    )


def test_options_vote_by_their_text() -> None:
    """Every sample has its own order of options: three votes for the letter A are for three options."""
    orders = [["red", "blue", "green"], ["blue", "green", "red"], ["green", "red", "blue"], ["x", "red", "y"]]
    rows = make_choices(["A", "A", "A", "B"], ["A", "C", "B", "B"], orders)
    # red twice (right), blue once, green once.
    assert compute_majority(rows) == 1.0


def test_letters() -> None:
    """A model that always says D scored 45% where the right option was always D."""
    orders = [["a", "b", "c", "d"]] * 4
    summary = summarize_task(make_choices(["D", "D", None, "A"], ["D", "D", "D", "A"], orders))
    shares = {share.letter: (share.chosen, share.right, share.accuracy) for share in summary.letters}
    assert shares == {
        "A": (0.25, 0.25, 1.0),
        "B": (0.0, 0.0, None),
        "C": (0.0, 0.0, None),
        "D": (0.5, 0.75, pytest.approx(2 / 3)),
    }


def test_tasks_without_options_have_no_letters() -> None:
    assert summarize_task(make_rows({"q": "cw"})).letters == ()
    assert summarize_task(make_rows({"q": "cw"}).drop("options", "engine", "completion_tokens")).engines == ()


def test_no_completions() -> None:
    with pytest.raises(ValueError, match="no completions"):
        summarize_task(pl.DataFrame(schema=SCHEMA))
