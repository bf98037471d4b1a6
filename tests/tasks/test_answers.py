"""Final answers found in solutions, as a careful reader would find them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.tasks.answers import (
    drop_thousands_commas,
    extract_answer,
    extract_boxed_answer,
    extract_hash_answer,
    render_answer,
)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"So $\boxed{4}$.", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\left\{x \mid x > 0\right\}}", r"\left\{x \mid x > 0\right\}"),
        (r"first \boxed{3}, then \boxed{5}", "5"),
        (r"first \boxed{3}, then cut off: \boxed{5", "3"),
        (r"\boxed{a unclosed, but \boxed{7} inside", "7"),
        (r"\boxed{\boxed{7}}", "7"),
        (r"\boxed { 9 }", "9"),
        (r"$\boxed 5$", "5"),
        (r"\fbox{12}", "12"),
        (r"nothing: \boxed{}", None),
        ("steps\n#### 18", "18"),
        ("steps\n#### 1,450,000 ", "1450000"),
        ("#### 1\nmore\n#### -2", "-2"),
        ("a #### 3 in the middle of a line is no answer, I say", None),
        (r"Both: \boxed{6}" + "\n#### 7", "6"),
        ("Long reasoning.\nThe answer is: $12$.", "12"),
        ("Answer: **x + 1**", "x + 1"),
        (r"Therefore the answer is \(8000\).", "8000"),
        ("The answer is that nobody can know what becomes of it.", None),
        ("128", "128"),
        (r"  \(x^2\)  ", "x^2"),
        ("(1, 2)", "(1, 2)"),
        ("This sentence is no answer by itself", None),
        ("Done.", None),
        ("", None),
        ("   \n ", None),
    ],
)
def test_the_final_answer_is_found(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


def test_every_published_answer_of_math500_is_extracted(shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "math500.jsonl").read_text("utf-8").splitlines()]
    assert [extract_answer(row["solution"]) for row in rows] == [row["answer"] for row in rows]


def test_every_answer_of_gsm8k_is_a_bare_number(shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "gsm8k_test.jsonl").read_text("utf-8").splitlines()]
    answers = [extract_hash_answer(row["answer"]) for row in rows]
    assert all(answer is not None and answer.lstrip("-").isdigit() for answer in answers)


def test_thousands_are_joined_and_lists_are_not() -> None:
    assert drop_thousands_commas("$1,234,567.89") == "$1234567.89"
    assert drop_thousands_commas("1,2,3") == "1,2,3"
    assert drop_thousands_commas("12,34") == "12,34"


def test_many_boxes_that_never_close_cost_linear_time() -> None:
    # Looping traces do this; with a search from each box this would take minutes.
    assert extract_boxed_answer(r"\boxed{" * 200_000) is None


BALANCED = st.recursive(
    st.text(alphabet="ab1 +-^,\n", max_size=6),
    lambda inner: st.builds(lambda a, b, c: f"{a}{{{b}}}{c}", inner, inner, inner),
    max_leaves=8,
)


@given(before=st.text(alphabet="ab {}#\n", max_size=20), answer=BALANCED.filter(str.strip))
def test_a_rendered_answer_is_extracted_again(before: str, answer: str) -> None:
    assert extract_boxed_answer(before + render_answer(answer)) == answer.strip()


@given(st.text(max_size=300))
def test_no_text_breaks_the_extraction(text: str) -> None:
    answer = extract_answer(text)
    assert answer is None or answer.strip()
