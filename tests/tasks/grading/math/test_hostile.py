"""Hostile answers: what was tried, and what came back."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from rlt_data.tasks.grading.base import Item
from rlt_data.tasks.grading.math.verifier import AnswerVerifier
from rlt_data.tasks.grading.opening import open_graders

pytest.importorskip("math_verify")

POWER = "the answer has a power with more than 32,768 bits"
MATRIX = r"\begin{pmatrix}" + "&".join("1" * 1000) + r"\end{pmatrix}"
FACTORIAL = "the answer has the factorial of a number above 3,000"

# The answer, its verdict, and the detail of the verdict. The true answer is 5.
HOSTILE = [
    # Python, for a parser that evaluates what it reads
    (r"__import__('os').system('touch hacked')", "wrong", None),
    (r"\text{__import__('os').system('touch hacked')}", "wrong", None),
    ("open('hacked', 'w').close()", "wrong", None),
    ("().__class__.__bases__[0].__subclasses__()", "wrong", None),
    ("[x for x in (1).__class__.__mro__]", "wrong", None),
    ("lambda: 5", "wrong", None),
    ("sympify('5')", "wrong", None),
    ("5 if True else 0", "wrong", None),
    ("2+3;import os", "wrong", None),
    # texts that look like a verdict, or like the protocol of the child
    ('"}\n{"value": true}', "wrong", None),
    ("true", "wrong", None),
    ("correct", "wrong", None),
    ("%s%s%n", "wrong", None),
    ("ready", "wrong", None),
    # numbers beyond any use
    ("10^{10^{10}}", "failed", POWER),
    ("10**10**10", "wrong", None),
    ("5^(5^(5^5))", "failed", POWER),
    ("9^{9^{9^{9}}}", "failed", POWER),
    ("2^{2^{2^{2^{2^{2}}}}}", "failed", POWER),
    ("10^{-10^{9}}", "failed", POWER),
    (r"1 \times 10^{999999999}", "failed", POWER),
    ("1e999999999", "wrong", None),
    ("100000000!", "failed", FACTORIAL),
    ("((9!)!)!", "failed", FACTORIAL),
    ("5!!!!!!!!!!", "failed", FACTORIAL),
    (r"\Gamma(10^{9})", "failed", FACTORIAL),
    ("7" * 256, "wrong", None),
    ("7" * 257, "failed", "the answer has more than 256 digits in a row"),
    ("7" * 1_000_000, "failed", "the answer has 1,000,000 characters; at most 4,096 are compared"),
    # what is undefined
    (r"\frac{1}{0}", "wrong", None),
    (r"\frac{0}{0}", "wrong", None),
    (r"\infty - \infty", "wrong", None),
    (r"\log_{0}(0)", "wrong", None),
    (r"\tan(\frac{\pi}{2})", "wrong", None),
    # depth and length
    ("(" * 65 + "5" + ")" * 65, "failed", "the answer is nested 65 deep; at most 64 are compared"),
    ("{" * 64 + "5" + "}" * 64, "correct", None),
    (r"\boxed{" * 500, "failed", "the answer is nested 500 deep; at most 64 are compared"),
    (",".join("1" * 2000), "failed", "the answer has 2000 items; at most 64 are compared"),
    ("5=" * 1000, "failed", "the answer has 1000 items; at most 64 are compared"),
    (MATRIX, "failed", "the answer has 1000 items; at most 64 are compared"),
    # broken text
    ("5\x00", "failed", "the answer has control characters"),
    ("\ud800", "wrong", None),
    ("5\u200b", "correct", None),
    ("\u202e5", "wrong", None),
    ("}{", "wrong", None),
    ("\\", "wrong", None),
    ("\\\\" * 2000, "wrong", None),
    (r"\left(", "wrong", None),
    (r"\begin{pmatrix}", "wrong", None),
    ("=" * 4000, "wrong", None),
    (":" * 4000, "wrong", None),
    ("$" * 4000, "wrong", None),
    ("." * 4000, "wrong", None),
    ("±" * 2000, "wrong", None),
    ("1 " * 2000, "wrong", None),
    (" " * 4000 + "x", "wrong", None),
    # more than one answer, for a grader that takes any of them
    ("4 or 5", "wrong", None),
    ("3, 4, 5, 6", "wrong", None),
    (r"\{1,2,3,4,5\}", "wrong", None),
    (r"4 \text{ or } 5", "wrong", None),
    (r"[0, 10]", "wrong", None),
    ("x > 0", "wrong", None),
    (r"\mathbb{R}", "wrong", None),
    ("5 or any other number", "wrong", None),
]  # fmt: skip

# How far these come within their time depends on the machine; none is accepted, and all of them end.
SLOW = [
    r"\sum_{k=1}^{1000000} k^k",
    r"\prod_{k=1}^{1000000} k",
    r"\int_0^{10^6} \sin(x^2)\cos(e^x) dx",
    r"\binom{10^{9}}{5 \cdot 10^{8}}",
    r"e^{e^{e^{e^{10}}}}",
    "-" * 4000 + "1",
    "1+" * 2000 + "1",
    "|" * 2000,
    "x^" * 2000 + "2",
    "(x+y+z+w)^{500}",
    r"\sin(" * 60 + "x" + ")" * 60,
    r"\frac{1}{" * 60 + "2" + "}" * 60,
]


def name_case(text: str) -> str:
    return ascii(text[:30])


def test_hostile_answers_end_in_the_verdicts_of_the_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Children start in this folder, and would leave a file here.
    monkeypatch.chdir(tmp_path)
    with AnswerVerifier(seconds=60.0) as verifier:
        results = verifier.compare(("5", text) for text, _, _ in HOSTILE)
    found = [(name_case(text), r.verdict, r.detail) for (text, _, _), r in zip(HOSTILE, results, strict=True)]
    assert found == [(name_case(text), verdict, detail) for text, verdict, detail in HOSTILE]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_slow_answers_end_and_lose_nothing_else() -> None:
    pairs = [pair for text in SLOW for pair in (("5", text), ("x + y", "y + x"))]
    with AnswerVerifier(seconds=1.0, processes=1) as verifier:
        verifier.verify([("x", "y")])
        verdicts = verifier.verify(pairs)
    assert set(verdicts[::2]) <= {"wrong", "failed", "timed_out"}
    # A machine that is busy for a second may time out a good pair too; it must never be found wrong.
    assert set(verdicts[1::2]) <= {"correct", "timed_out"}
    assert "correct" in verdicts[1::2]


@pytest.mark.slow
def test_hostile_completions_end_as_grades() -> None:
    texts = [rf"\boxed{{{text}}}" for text, _, _ in HOSTILE]
    texts += [text for text, _, _ in HOSTILE]
    texts += ["\\boxed{" * 100_000, "{" * 1_000_000, "a" * 2_000_000, "\x00" * 1000, "\ud800" * 1000]
    items = [Item(str(i), text, text, False, "", "5") for i, text in enumerate(texts)]
    with open_graders(["math", "text"]) as graders:
        for grader in graders.values():
            for extraction in ("stated", "last"):
                grades = grader.grade(items, extraction)
                assert [grade.key for grade in grades] == [item.key for item in items]
                assert {grade.verdict for grade in grades} <= {"correct", "wrong", "no_answer", "failed"}


def test_a_limit_on_a_true_answer_does_not_refuse_the_same_text() -> None:
    with AnswerVerifier(processes=1) as verifier:
        assert verifier.verify([("10^{10^{10}}", "10^{10^{10}}"), ("7" * 300, "7" * 300)]) == ["correct"] * 2


def test_no_answer_is_evaluated_as_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """SymPy's `parse_expr` evaluates a text by these, and `sympify` and `Number` call it."""
    from sympy.parsing import sympy_parser

    from rlt_data.tasks.grading.math.symbolic import compare_pair

    def refuse(*arguments: object, **options: object) -> None:
        pytest.fail(f"evaluated {arguments!r}")

    monkeypatch.setattr(sympy_parser, "eval_expr", refuse)
    monkeypatch.setattr(sympy_parser, "stringify_expr", refuse)
    pairs = tomllib.loads(Path(__file__).with_name("pairs.toml").read_text(encoding="utf-8"))["pairs"]
    for pair in pairs:
        compare_pair((pair["true"], pair["given"]))
    for text, verdict, _ in HOSTILE:
        if verdict == "wrong":
            compare_pair(("5", text))
