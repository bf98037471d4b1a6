"""Countdown: an expression that uses each given number once and equals the target."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlt_data.tasks.answers import extract_boxed_answer, extract_tagged_answer
from rlt_data.tasks.expressions import MAX_CHARACTERS, MAX_NUMBERS, ExpressionError, read_expression

_STATED = re.compile(
    r"\b(?:final\s{1,3})?(?:answer|expression|solution)(?:\s{1,3}is\b\s{0,3}:?|\s{0,3}:)", re.IGNORECASE
)
_SIGNS = r"-+*/()\[\]=\s×·⋅∙∗•−–‒﹣－÷∕⁄＋"
_PLAIN = re.compile(rf"[{_SIGNS}0-9]{{3,{MAX_CHARACTERS}}}", re.ASCII)
_OPERATOR = re.compile(r"[-+*/×·⋅∙∗•−–‒﹣－÷∕⁄＋]")
_DIGIT_AND_OPERATOR = re.compile(r"[0-9)\]]\s{0,3}[-+*/×·⋅∙∗•−–‒﹣－÷∕⁄＋]\s{0,3}[-(\[0-9]")
_WRAPPED = re.compile(r"\\(?:text|mathrm|displaystyle)\s{0,2}\{([^{}]*)\}")
_DECORATION = " \t\r\n$`*.,;:"


@dataclass(frozen=True)
class Puzzle:
    """The numbers to use, each once, and the target."""

    numbers: tuple[int, ...]
    target: int


def read_puzzle(metadata: Mapping[str, Any]) -> Puzzle | None:
    """Read the puzzle of a question's metadata, in the columns of reasoning-gym and of other countdown sets:
    `numbers` or `nums`, and `target`; None where they are not whole numbers."""
    numbers = metadata.get("numbers", metadata.get("nums"))
    target = metadata.get("target")
    if not isinstance(numbers, list | tuple) or not 0 < len(numbers) <= MAX_NUMBERS:
        return None
    values = [_read_whole(value) for value in (*numbers, target)]
    whole = [value for value in values if value is not None]
    return Puzzle(tuple(whole[:-1]), whole[-1]) if len(whole) == len(values) else None


def check_expression(text: str, puzzle: Puzzle) -> str | None:
    """Check an answer such as `(3 + 5) * 2` or `(3 + 5) * 2 = 16`; return what is wrong, None if it is right.

    It must use every number exactly as often as it is given, as reasoning-gym demands, and nothing else, and
    equal the target exactly. Where it is an equation, every other side must equal the target too.
    """
    sides = clean_expression(text).split("=")
    if len(sides) > 4:
        return "it has more than three equals signs"
    try:
        expressions = [read_expression(side) for side in sides]
    except ExpressionError as error:
        return str(error)
    used = [side for side in expressions if Counter(side.numbers) == Counter(puzzle.numbers)]
    if not used:
        return f"it does not use each of {_list(puzzle.numbers)} exactly once"
    wrong = [side for side in expressions if side.value != puzzle.target]
    return f"it equals {_show(wrong[0].value)}, not {puzzle.target}" if wrong else None


def clean_expression(text: str) -> str:
    """Remove dollar signs, LaTeX's text commands, emphasis around the text, and a final period."""
    text = _WRAPPED.sub(r"\1", text[: 4 * MAX_CHARACTERS]).strip(_DECORATION)
    return re.sub(r"^\\[(\[]|\\[)\]]$", "", text).strip(_DECORATION)


def find_expression(text: str, *, anywhere: bool) -> tuple[str, str] | None:
    """Find the expression that a text gives as its answer, and how: answer_tag, boxed, stated, plain or last.

    In this order: the last `<answer>`, the last box, the text after "the answer is" or "answer:" (the last
    one), and the last line where it is arithmetic alone. `anywhere`: else the last arithmetic in the text.
    """
    tagged = extract_tagged_answer(text)
    if tagged is not None:
        return tagged[: 4 * MAX_CHARACTERS], "answer_tag"
    box = extract_boxed_answer(text)
    if box is not None:
        return box[: 4 * MAX_CHARACTERS], "boxed"
    for found in reversed(list(_STATED.finditer(text))):
        line = text[found.end() : found.end() + 2 * MAX_CHARACTERS].lstrip("*_ \t\r\n").partition("\n")[0]
        expression = _find_arithmetic(line)
        if expression is not None:
            return expression, "stated"
    line = clean_expression(text.rstrip()[-2 * MAX_CHARACTERS :].rpartition("\n")[2])
    if _PLAIN.fullmatch(line) and _DIGIT_AND_OPERATOR.search(line):
        return line, "plain"
    if anywhere and (expression := _find_arithmetic(text)) is not None:
        return expression, "last"
    return None


def _find_arithmetic(text: str) -> str | None:
    """Return the last run of digits and signs with an operator between two numbers."""
    last = None
    for found in _PLAIN.finditer(text):
        # A line is one expression.
        for line in found[0].splitlines():
            if _DIGIT_AND_OPERATOR.search(line):
                last = line.strip()
    return last


def _read_whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value.strip()):
        return int(value)
    return value if isinstance(value, int) else None


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _show(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
