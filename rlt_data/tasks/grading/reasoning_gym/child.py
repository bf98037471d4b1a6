"""Scores answers by reasoning-gym's own scorers. Imported in child processes alone: it gives up rights.

Several scorers pass the answer to `eval`, or to sympy's `parse_expr`, which evaluates Python. So the answers
never reach either of them: in the modules of reasoning-gym, `eval` is replaced by a function that reads
literals, and `parse_expr` by one that first checks that a text is plain algebra. Besides, this process has
no network where the system lets it give it up, writes no files, and has the limits of `grading/child.py`.
"""

from __future__ import annotations

import ast
import ctypes
import operator
import re
import resource
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import ModuleType
from typing import Any

_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
_MAX_TEXT = 20_000
_TUPLES = frozenset({"arc_agi", "rearc"})
"""Datasets whose scorers compare the metadata with tuples, which JSON has as lists."""

_SIGNS: Mapping[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}
_ALGEBRA = re.compile(r"[0-9A-Za-z_+\-*/^().,=!\s]{1,2000}", re.ASCII)
_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_NAMES = frozenset(
    {"sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh", "exp", "log"}
    | {"ln", "sqrt", "Abs", "pi", "erf", "alpha", "beta", "gamma", "delta", "theta", "mu", "phi", "psi"}
)
_DIGITS = re.compile(r"[0-9]{257}", re.ASCII)
_ATTRIBUTE = re.compile(r"\.\s*[A-Za-z_]|[A-Za-z_)]\s*\.", re.ASCII)


def give_up_rights() -> None:
    """Leave the network, as far as the system lets this process, and write no more files."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).unshare(_NEW_USER | _NEW_NETWORK)
    for limit in (resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
        with suppress(ValueError, OSError):
            resource.setrlimit(limit, (0, 0))


def read_literal(text: Any, *_: Any) -> Any:
    """Read a Python literal: stands in for `eval`. Raises `ValueError` for anything else."""
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        raise ValueError("the text is too long")
    return ast.literal_eval(text.strip())


def compute_bits(text: Any, *_: Any) -> int:
    """Compute whole numbers with `+ - * & | ^ << >>`: stands in for `eval` in `bitwise_arithmetic`.

    Raises `ValueError` for anything else.
    """
    if not isinstance(text, str) or len(text) > _MAX_TEXT:
        raise ValueError("the text is too long")
    return _compute(ast.parse(text.strip(), mode="eval").body)


def _compute(node: ast.AST) -> int:
    match node:
        case ast.Constant(value=int() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_compute(operand)
        case ast.UnaryOp(op=ast.Invert(), operand=operand):
            return ~_compute(operand)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _SIGNS:
            first, second = _compute(left), _compute(right)
            if isinstance(sign, ast.LShift) and second > 4096:
                raise ValueError("the shift is too long")
            return _SIGNS[type(sign)](first, second)
        case _:
            raise ValueError("the text is not arithmetic over whole numbers")


def check_algebra(text: Any) -> None:
    """Raise `ValueError` unless a text has only numbers, signs, letters, and names of known functions."""
    if not isinstance(text, str) or not _ALGEBRA.fullmatch(text):
        raise ValueError("the text is not plain algebra")
    names = {name for name in _NAME.findall(text) if len(name) > 1} - _NAMES
    if names or _DIGITS.search(text) or _ATTRIBUTE.search(text):
        raise ValueError("the text is not plain algebra")


def guard_parser(parse: Callable[..., Any]) -> Callable[..., Any]:
    """Return sympy's `parse_expr`, which refuses all texts that are not plain algebra."""

    def parse_algebra(text: Any, *arguments: Any, **options: Any) -> Any:
        check_algebra(text)
        return parse(text, *arguments, **options)

    return parse_algebra


def refuse(*_: Any, **__: Any) -> None:
    """Stand in for `exec`. Raises `ValueError`."""
    raise ValueError("no code is executed here")


def replace_evaluators(modules: Mapping[str, ModuleType]) -> None:
    """Replace `eval`, `exec` and `parse_expr` in all modules of reasoning-gym, and sympy's `parse_expr`."""
    import sympy
    from sympy.parsing import sympy_parser

    original = sympy_parser.parse_expr
    guarded = guard_parser(original)
    sympy.parse_expr = guarded
    for name, module in list(modules.items()):
        if name.partition(".")[0] == "reasoning_gym":
            own = compute_bits if name.endswith(".bitwise_arithmetic") else read_literal
            vars(module).update(eval=own, exec=refuse)
            if vars(module).get("parse_expr") is original:
                vars(module)["parse_expr"] = guarded


def score(request: tuple[str, str, dict[str, Any]]) -> float:
    """Score an answer: dataset, answer, and the problem with `question`, `answer` and `metadata`.

    Raises `LookupError` for an unknown dataset, and whatever a scorer raises.
    """
    name, answer, entry = request
    if name in _TUPLES:
        entry = {**entry, "metadata": {key: _freeze(value) for key, value in entry["metadata"].items()}}
    return float(_open_scorer(name, entry["metadata"]).score_answer(answer, entry))


def _open_scorer(name: str, metadata: Mapping[str, Any]) -> Any:
    """Return the dataset of a problem; its limits are those that the metadata gives, where a scorer asks."""
    if name not in _scorers:
        dataset, config = DATASETS[name]
        _scorers[name] = dataset(config=config(size=1, seed=0))
    scorer = _scorers[name]
    difficulty = metadata.get("difficulty") or {}
    match name:
        case "decimal_arithmetic":
            scorer.config.max_num_decimal_places = difficulty["decimal_places"][1]
        case "puzzle24":
            scorer.config.min_value, scorer.config.max_value = difficulty["value"]
        case _:
            pass
    return scorer


def _freeze(value: Any) -> Any:
    return tuple(_freeze(item) for item in value) if isinstance(value, list) else value


give_up_rights()

from reasoning_gym.factory import DATASETS  # noqa: E402

_scorers: dict[str, Any] = {}
replace_evaluators(sys.modules)
