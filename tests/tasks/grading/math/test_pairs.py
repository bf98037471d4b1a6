"""The table of answer pairs in `pairs.toml`, through the processes that compare them."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from rlt_data.tasks.grading.math.verifier import AnswerVerifier

pytest.importorskip("math_verify")

PAIRS = tomllib.loads(Path(__file__).with_name("pairs.toml").read_text(encoding="utf-8"))["pairs"]


def test_every_pair_is_compared_as_the_table_says() -> None:
    with AnswerVerifier(seconds=60.0) as verifier:
        verdicts = verifier.verify((pair["true"], pair["given"]) for pair in PAIRS)
    expected = ["correct" if pair["equal"] else "wrong" for pair in PAIRS]
    differing = [
        (pair["true"], pair["given"], verdict, pair["why"])
        for pair, verdict, right in zip(PAIRS, verdicts, expected, strict=True)
        if verdict != right
    ]
    assert differing == []


def test_every_true_answer_equals_itself_and_its_boxed_form() -> None:
    answers = sorted({pair["true"] for pair in PAIRS})
    with AnswerVerifier(seconds=60.0) as verifier:
        verdicts = verifier.verify((answer, f"$ {answer} $.") for answer in answers)
    assert [a for a, verdict in zip(answers, verdicts, strict=True) if verdict != "correct"] == []
