"""Chained arithmetic: problems as reasoning-gym words them, styles recognized from their text."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.sources.procedural.arithmetic import (
    STYLES,
    Chain,
    Style,
    classify_explanation,
    parse_chain,
    sample_chain,
    write_explanation,
)

chains = st.builds(
    lambda seed, terms: sample_chain(random.Random(seed), terms), st.integers(), st.integers(2, 6)
)


@given(chains)
def test_results_are_those_of_python(chain: Chain) -> None:
    expression = chain.question.split(":")[1].removesuffix("=")
    total = sum(int(part) for part in expression.replace("- ", "-").replace("+ ", "").split())
    assert chain.results[-1] == total
    assert len(chain.results) == len(chain.terms)
    assert parse_chain(chain.question) == chain


@given(chains, st.sampled_from(STYLES), st.integers())
def test_the_style_of_an_explanation_is_recognized_from_its_text(
    chain: Chain, style: Style, seed: int
) -> None:
    think = write_explanation(chain, style, random.Random(seed))
    if style == "skip" and len(chain.terms) < 3:
        style = "good"
    if style == "bogus" and len(chain.terms) < 3:
        style = "good"
    assert classify_explanation(chain.question, think) == style


def test_problems_are_those_of_reasoning_gym() -> None:
    gym = pytest.importorskip("reasoning_gym")
    options = {"min_terms": 3, "max_terms": 3, "min_digits": 1, "max_digits": 1}
    for row in gym.create_dataset("chain_sum", size=50, seed=1, **options):
        chain = parse_chain(row["question"])
        assert chain is not None
        assert chain.question == row["question"]
        assert str(chain.results[-1]) == row["answer"]
        assert all(0 <= term <= 9 for term in chain.terms)


@pytest.mark.parametrize(
    ("think", "style"),
    [
        ("First 4 - 1 = 3, then 3 + 8 = 11.", "good"),
        ("First 4 - 1 + 8 = 11.", "skip"),
        ("First 4 - 1 = 3, then 3 + 8 = 12.", "wrong"),
        ("First 4 - 1 = 5, then 5 + 8 = 11.", "bogus"),
        ("First 4 - 1 = 3.", "wrong"),
        ("First 4 + 1 = 5, then 5 + 6 = 11.", "bogus"),
        ("It must be 11.", "leak"),
        ("It must be 12.", "other"),
        ("Well now, it must be 11.", "padded_leak"),
        ("Well now.", "ramble"),
        ("", "other"),
        ("11", "other"),
    ],
)
def test_verdicts(think: str, style: str) -> None:
    assert (
        classify_explanation("State the final answer to the following arithmetic problem: 4 - 1 + 8 =", think)
        == style
    )


def test_other_questions_are_not_classified() -> None:
    assert parse_chain("What is 3 + 4?") is None
    assert classify_explanation("What is 3 + 4?", "It must be 7.") == "other"
