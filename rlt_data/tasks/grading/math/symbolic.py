"""Compare values as mathematics, by latex2sympy and math-verify. Runs in the children of `verifier.py`.

Answers are parsed by a grammar of LaTeX, never as Python. SymPy's `parse_expr` evaluates what it reads, and
even `Number("25")` calls it; here it is replaced by a function that reads numerals and refuses all else. Two
expressions with variables are equal where they have equal values at fixed points, wherever both are real:
that is faster than simplification, and does not hang.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, assert_never

import math_verify
import sympy
import sympy.physics.units  # SymPy loads it on use, and it evaluates its own texts as it loads.
from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex
from math_verify.grader import should_treat_as_complex
from sympy.core.relational import Relational
from sympy.logic.boolalg import Boolean
from sympy.parsing import sympy_parser

from rlt_data.tasks.grading.math.comparison import ABSOLUTE, RELATIVE, Kind, compare_answers
from rlt_data.tasks.grading.math.limits import BITS_LIMIT, NODES_LIMIT, OverLimitError

_LAYOUT = NormalizationConfig(
    basic_latex=True, units=False, malformed_operators=False, nits=False, boxed="none", equations=False
)
_INTEGER = re.compile(r"-?[0-9]{1,1000}")
_DECIMAL = re.compile(r"-?[0-9]{0,1000}\.[0-9]{0,1000}")
_EXPONENT_LIMIT = 10_000
_FACTORIAL_LIMIT = 3_000
_DIGITS = 60
_EXACT = sympy.Float("1e-40", _DIGITS)
# Values of variables: on both sides of 0 and 1, none of them special.
_POINTS = ("0.3719", "1.6183", "2.7041", "-0.5823", "-1.3117", "3.9107", "0.8831", "-2.2361")
_NEEDED_POINTS = 3
_FACTORIALS = (sympy.factorial, sympy.factorial2, sympy.subfactorial, sympy.gamma)
_LAZY = (sympy.Integral, sympy.Sum, sympy.Product, sympy.Limit, sympy.Derivative)


class _UnreadableError(Exception):
    """An answer is not an expression that the grammar reads."""


def compare_pair(pair: tuple[str, str]) -> bool | str:
    """Return whether the true and the given answer are equal, or a sentence about a limit exceeded."""
    true, given = pair
    try:
        with numerals_only():
            return compare_answers(true, given, compare)
    except OverLimitError as error:
        return str(error)


@contextmanager
def numerals_only() -> Iterator[None]:
    """Let SymPy read numerals, and refuse any other text, instead of evaluating it as Python."""
    replaced = sympy_parser.parse_expr
    sympy_parser.parse_expr = _read_numeral
    try:
        yield
    finally:
        sympy_parser.parse_expr = replaced


def _read_numeral(text: str, *arguments: Any, **options: Any) -> Any:
    if _INTEGER.fullmatch(text):
        return sympy.Integer(int(text))
    if _DECIMAL.fullmatch(text):
        return sympy.Float(text)
    raise SyntaxError(text)


def compare(kind: Kind, true: str, given: str) -> bool:
    """Return whether two values, equations or sets are equal. Raises `OverLimitError`."""
    if _mixes_cases(true + " " + given):
        # The parser reads A and a as one variable.
        return False
    try:
        match kind:
            case "values":
                return _compare_values(parse(true), parse(given))
            case "equations":
                return _compare_equations(true, given)
            case "sets":
                return _compare_sets(parse(true), parse(given))
            case _:
                assert_never(kind)
    except _UnreadableError:
        return False


@lru_cache(maxsize=1024)
def parse(text: str) -> Any:
    """Parse LaTeX. Raises `_UnreadableError`, and `OverLimitError` where the expression is too large."""
    layout = normalize_latex(text, config=_LAYOUT)
    if _mixes_cases(layout):
        raise _UnreadableError(text)
    try:
        parsed = latex2sympy(
            layout,
            is_real=not should_treat_as_complex(layout),
            convert_degrees=False,
            normalization_config=None,
        )
    except (MemoryError, RecursionError):
        raise
    except Exception as error:
        # The parser raises Exception itself.
        raise _UnreadableError(text) from error
    if isinstance(parsed, list):
        raise _UnreadableError(text)
    if isinstance(parsed, sympy.Basic):
        # The parser reads i as a variable.
        parsed = parsed.xreplace({symbol: sympy.I for symbol in parsed.free_symbols if symbol.name == "i"})
    check_size(parsed)
    return parsed


def _mixes_cases(text: str) -> bool:
    """Return whether a variable is in upper and in lower case."""
    letters = set(re.sub(r"\\(?:begin|end)\s*\{[a-zA-Z]*\}|\\[a-zA-Z]+", "", text))
    return any(letter.isupper() and letter.lower() in letters for letter in letters)


def check_size(expression: Any) -> None:
    """Raise `OverLimitError` where an expression has too many nodes, or stands for too large a number."""
    if not isinstance(expression, sympy.Basic):
        return
    for count, node in enumerate(sympy.preorder_traversal(expression)):
        if count > NODES_LIMIT:
            raise OverLimitError(f"the answer has more than {NODES_LIMIT} terms")
        if isinstance(node, sympy.Pow) and node.exp.is_number:
            size, bits = _estimate_size(node.exp), _estimate_bits(node.base) if node.base.is_number else 1.0
            if size > _EXPONENT_LIMIT or size * bits > BITS_LIMIT:
                raise OverLimitError(f"the answer has a power with more than {BITS_LIMIT:,} bits")
        if isinstance(node, _FACTORIALS) and _estimate_size(node.args[0]) > _FACTORIAL_LIMIT:
            raise OverLimitError(f"the answer has the factorial of a number above {_FACTORIAL_LIMIT:,}")


def _estimate_size(number: Any) -> float:
    """Return a bound of the absolute value of a number; infinity where it is beyond any limit here."""
    if isinstance(number, sympy.Rational):
        return math.inf if abs(number.p) > 2**64 else abs(number.p) / number.q
    bits = _estimate_bits(number)
    return math.inf if bits > 64 else 2.0**bits


def _estimate_bits(number: Any) -> float:
    """Return the base-2 logarithm of a bound of a number and of its inverse, without computing the number."""
    if isinstance(number, sympy.Rational):
        return math.log2(max(1, abs(number.p), number.q))
    if isinstance(number, sympy.Float):
        return abs(float(sympy.log(abs(number), 2))) if number else 0.0
    if isinstance(number, sympy.Pow):
        size = _estimate_size(number.exp)
        return size * _estimate_bits(number.base)
    if isinstance(number, _FACTORIALS):
        size = _estimate_size(number.args[0])
        return size * math.log2(size + 2) if size < 2.0**64 else math.inf
    if isinstance(number, sympy.Mul):
        return sum(_estimate_bits(part) for part in number.args)
    if number.args:
        return max(_estimate_bits(part) for part in number.args) + len(number.args)
    return 2.0


def _compare_values(true: Any, given: Any) -> bool:
    if any(isinstance(value, sympy.Basic) and value.has(sympy.zoo, sympy.nan) for value in (true, given)):
        # What is undefined is equal to nothing.
        return False
    if true == given:
        return True
    if _is_expression(true) and _is_expression(given):
        return _compare_expressions(_evaluate(true), _evaluate(given))
    if _is_expression(true) != _is_expression(given):
        return False
    return bool(math_verify.verify([true], [given], timeout_seconds=None))


def _is_expression(value: Any) -> bool:
    return isinstance(value, sympy.Expr) and not isinstance(value, sympy.MatrixExpr)


def _evaluate(expression: Any) -> Any:
    return expression.doit() if expression.has(*_LAZY) else expression


def _compare_expressions(true: Any, given: Any) -> bool:
    floats = true.has(sympy.Float), given.has(sympy.Float)
    true, given = _read_decimals(true), _read_decimals(given)
    ends = _is_written_out(true, is_decimal=floats[0]), _is_written_out(given, is_decimal=floats[1])
    # A decimal approximates only what has no decimals of its own: 0.5000004 is not 0.5.
    is_decimal = any(floats) and not all(ends) and (floats[0] != floats[1] or ends[0] != ends[1])
    names = sorted({symbol.name for symbol in true.free_symbols | given.free_symbols})
    if names:
        return _compare_at_points(true, given, names, is_decimal=is_decimal)
    true, given = true.doit(), given.doit()
    if not is_decimal and true.is_Rational and given.is_Rational:
        return bool(true == given)
    return _is_equal(true.evalf(_DIGITS), given.evalf(_DIGITS), is_decimal=is_decimal)


def _read_decimals(expression: Any) -> Any:
    """Return an expression with its decimals as the fractions that they write out."""
    return expression.xreplace(
        {number: sympy.Rational(str(number)) for number in expression.atoms(sympy.Float)}
    )


def _is_written_out(expression: Any, *, is_decimal: bool) -> bool:
    """Return whether the numbers of an expression are integers and decimals, which nothing approximates.

    Fractions are where six decimals write them out.
    """
    if not expression.free_symbols:
        expression = expression.doit()
        if not expression.is_Rational:
            return False
    if expression.has(sympy.NumberSymbol) or any(
        power.base.is_number and not power.exp.is_integer for power in expression.atoms(sympy.Pow)
    ):
        return False
    scale = 10**40 if is_decimal else 10**6
    return all(scale % number.q == 0 for number in expression.atoms(sympy.Rational))


def _compare_at_points(true: Any, given: Any, names: list[str], *, is_decimal: bool) -> bool:
    is_complex = true.has(sympy.I) or given.has(sympy.I)
    equal = 0
    for point in _iterate_points(names):
        one, other = _evaluate_at(true, point), _evaluate_at(given, point)
        if one is None or other is None:
            continue
        if not is_complex and not (_is_real(one) and _is_real(other)):
            continue
        if not _is_equal(one, other, is_decimal=is_decimal):
            return False
        equal += 1
    if equal >= _NEEDED_POINTS:
        return True
    return bool(math_verify.verify([true], [given], timeout_seconds=None))


def _iterate_points(names: list[str]) -> Iterator[dict[str, Any]]:
    for shift in range(len(_POINTS)):
        values = (_POINTS[(shift + 3 * index) % len(_POINTS)] for index in range(len(names)))
        point = {}
        for index, (name, value) in enumerate(zip(names, values, strict=True)):
            point[name] = sympy.Rational(value) + sympy.Rational(index // len(_POINTS), 7)
        yield point


def _evaluate_at(expression: Any, point: dict[str, Any]) -> Any:
    values = {symbol: point[symbol.name] for symbol in expression.free_symbols}
    try:
        value = expression.xreplace(values).evalf(_DIGITS)
    except (TypeError, ValueError, ZeroDivisionError, ArithmeticError):
        return None
    return value if value.is_number and value.is_finite else None


def _is_real(value: Any) -> bool:
    real, imaginary = value.as_real_imag()
    return bool(abs(imaginary) <= _EXACT * (1 + abs(real)))


def _is_equal(true: Any, given: Any, *, is_decimal: bool) -> bool:
    if not (true.is_finite and given.is_finite):
        # Infinities are equal to themselves; what is undefined is equal to nothing.
        return bool(true == given) and true.is_infinite is True and not true.has(sympy.zoo, sympy.nan)
    difference, size = abs(sympy.N(true - given, _DIGITS)), abs(true)
    if is_decimal:
        absolute = sympy.Rational(ABSOLUTE.numerator, ABSOLUTE.denominator)
        relative = sympy.Rational(RELATIVE.numerator, RELATIVE.denominator)
        return bool(difference <= absolute) and bool(difference <= relative * size)
    return bool(difference <= _EXACT * size) or bool(size < _EXACT**2 and difference < _EXACT**2)


def _compare_equations(true: str, given: str) -> bool:
    """Equations are equal where one is a constant multiple of the other: 2x + 2y = 4 is x + y = 2."""
    sides = []
    for text in (true, given):
        left, _, right = text.rpartition("=")
        if "=" in left:
            return False
        sides.append(parse(left) - parse(right))
    one, other = sides
    names = sorted({symbol.name for symbol in one.free_symbols})
    if not names or names != sorted({symbol.name for symbol in other.free_symbols}):
        return False
    ratios = []
    for point in _iterate_points(names):
        a, b = _evaluate_at(one, point), _evaluate_at(other, point)
        if a is None or b is None:
            continue
        if abs(a) < _EXACT or abs(b) < _EXACT:
            return False
        ratios.append(a / b)
    is_decimal = one.has(sympy.Float) or other.has(sympy.Float)
    return len(ratios) >= _NEEDED_POINTS and all(
        _is_equal(ratios[0], ratio, is_decimal=is_decimal) for ratio in ratios[1:]
    )


def _compare_sets(true: Any, given: Any) -> bool:
    sets = [_make_set(value) for value in (true, given)]
    if sets[0] is not None and sets[1] is not None:
        return bool(sets[0] == sets[1])
    return bool(math_verify.verify([true], [given], timeout_seconds=None, allow_set_relation_comp=True))


def _make_set(value: Any) -> Any:
    if isinstance(value, sympy.Set):
        return value
    if isinstance(value, (Relational, Boolean)) and len(value.free_symbols) == 1:
        try:
            return value.as_set()
        except (NotImplementedError, AttributeError, TypeError, ValueError):
            return None
    return None
