"""Expressions: exact values, and a named refusal of everything else."""

import ast
import contextlib
import operator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.tasks.expressions import ExpressionError, read_expression

GOOD = {
    "1 + 2 * 3": (7, (1, 2, 3)),
    "(1+2)*3": (9, (1, 2, 3)),
    "8/3*3": (8, (8, 3, 3)),
    "10 - 4 - 3": (3, (10, 4, 3)),
    "100/7/7": (Fraction(100, 49), (100, 7, 7)),
    "-(2 - 5)": (3, (2, 5)),
    "2*-3": (-6, (2, 3)),
    "2 × 3 − 1": (5, (2, 3, 1)),
    "[6 ÷ (3)]": (2, (6, 3)),
    r"6 \times 7 \cdot 2 \div 4": (21, (6, 7, 2, 4)),
    r"\left(1+2\right)\times 3": (9, (1, 2, 3)),
    r"\frac{1+2}{3} + \dfrac{\frac{8}{2}}{4}": (2, (1, 2, 3, 8, 2, 4)),
    "\n 42\n": (42, (42,)),
    "0*5": (0, (0, 5)),
}
BAD = [
    "", " ", "()", "1+", "(1", "1)", "1 2", "2(3)", "(2)(3)", "2**3", "2^3", "7//2", "7%2", "1.5", "1e3",
    "1,000", "x", "1+x", "5!", "1/0", "1/(2-2)", "0x10", "1_000", "nan", "inf", "Infinity", "∞", "٤٢", "４２",
    "²", "1;2", "1=1", "__import__('os').system('touch /tmp/pwned')", "(lambda: 1)()",
    "[1 for i in range(9)]", "'a'*9", "10**10**10", "9**9**9", "\\frac{1}", "\\frac{1}2", "\\frac{1}{2",
    "\\input{/etc/passwd}", "\\sqrt{4}", "\x1b[31m1+1\x1b[0m", "1\x00+1", "1+\u202e1", "True",
    "1 if 1 else 2", "factorial(9)", "𝟙+1",
]  # fmt: skip
HOSTILE = {
    "a million brackets": "(" * 10**6 + "1" + ")" * 10**6,
    "nesting within the length": "(" * 400 + "1" + ")" * 400,
    "many signs": "-" * 900 + "1",
    "a long number": "9" * 500,
    "a number of 1 MB": "9" * 10**6,
    "many numbers": "+".join("1" * 200),
    "a sum of 1 MB": "1+" * 500_000 + "1",
    "nested fractions": r"\frac{" * 100 + "1" + "}{2}" * 100,
    "spaces": " " * 10**6 + "1",
}


@pytest.mark.parametrize("text", GOOD)
def test_values_are_exact_and_numbers_are_listed(text):
    expression = read_expression(text)
    assert (expression.value, expression.numbers) == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_everything_else_is_refused(text):
    with pytest.raises(ExpressionError):
        read_expression(text)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_are_refused_with_a_reason(name):
    with pytest.raises(ExpressionError, match=r"characters|nested|digits|numbers"):
        read_expression(HOSTILE[name])


_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def compute(node):
    """Compute a syntax tree of Python exactly."""
    match node:
        case ast.Constant():
            return Fraction(node.value)
        case ast.UnaryOp():
            return -compute(node.operand)
        case ast.BinOp():
            return _OPERATORS[type(node.op)](compute(node.left), compute(node.right))
        case _:
            raise AssertionError(ast.dump(node))


EXPRESSIONS = st.recursive(
    st.integers(0, 10**6).map(str),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" + ", "-", "*", " /"]), inner).map("".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"-({text})"),
    ),
    max_leaves=12,
)


@given(EXPRESSIONS)
def test_precedence_is_that_of_python(text):
    try:
        expected = compute(ast.parse(text, mode="eval").body)
    except ZeroDivisionError:
        with pytest.raises(ExpressionError, match="zero"):
            read_expression(text)
        return
    assert read_expression(text).value == expected


@given(st.text(max_size=60))
def test_any_text_gives_a_value_or_an_error_by_name(text):
    with contextlib.suppress(ExpressionError):
        assert isinstance(read_expression(text).value, Fraction)
