"""Countdown: which expressions solve a puzzle, and which expression a text gives as its answer."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.sources.opening import open_source
from rlt_data.tasks.countdown import Puzzle, check_expression, find_expression, read_puzzle

PUZZLE = Puzzle((3, 5, 2, 5), 21)
RIGHT = [
    "2*(3+5)+5",
    "2*(3+5)+5 = 21",
    "21 = 2*(3+5)+5",
    "2*(3+5)+5 = 16+5 = 21",
    "$2 \\times (3+5) + 5 = 21$",
    r"\(2 \cdot \left(5+3\right)+5\)",
    "2 × (3 + 5) + 5.",
    "`2*(3+5)+5`",
    "[3+5]*2+5",
]
WRONG = {
    "2*(3+5)+5 = 22": "equals 22",
    "2*(3+5)+4": "exactly once",
    "3*5+5": "exactly once",
    "21": "exactly once",
    "21 = 21": "exactly once",
    "2*(3+5)+5+0": "exactly once",
    "2*(3+5)+5*1": "exactly once",
    "2*3*5-5": "equals 25",
    "2*(3+5)+5 or 5+2*(3+5)": "not arithmetic",
    "23^2": "not arithmetic",
    "2**(3+5)+5": "stands where",
    "2(3+5)+5": "follows",
    "5/(3-3)+2*5": "zero",
    "__import__('os').system('touch /tmp/pwned')": "not arithmetic",
    "10**10**10": "stands where",
    "2*(3+5)+5.0": "not arithmetic",
    "2*(3+5)+٥": "not arithmetic",
    "2*(3+5)+5 = nan": "not arithmetic",
    "2*(3+5)+5 = inf": "not arithmetic",
    "\x1b[1m2*(3+5)+5\x1b[0m": "not arithmetic",
    "= = = =": "equals signs",
    "": "too early",
    "=21": "too early",
    "2*(3+5)+5=": "too early",
    "9" * 10**6: "characters",
    "(" * 10**6: "characters",
    "(" * 200 + "1" + ")" * 200: "nested",
    "1=" * 10**6: "equals signs",
}


@pytest.mark.parametrize("text", RIGHT)
def test_right_expressions(text):
    assert check_expression(text, PUZZLE) is None


@pytest.mark.parametrize("text", WRONG, ids=[text[:40] for text in WRONG])
def test_wrong_expressions_have_a_reason(text):
    assert WRONG[text] in (check_expression(text, PUZZLE) or "right")


def test_values_are_exact():
    # reasoning-gym accepts a relative error of 1e-5; here an expression equals its target or does not.
    puzzle = Puzzle((1, 3, 3, 999999), 999999)
    assert check_expression("999999 + 1/3/3", Puzzle((999999, 1, 3, 3), 999999)).startswith("it equals")
    assert check_expression("999999*3/3/1", puzzle) is None


FOUND = {
    r"Thinking 1+1=2. So \boxed{2*(3+5)+5}.": ("2*(3+5)+5", "boxed"),
    "<answer>2*(3+5)+5</answer>": ("2*(3+5)+5", "answer_tag"),
    r"<answer>1+1</answer> no: <answer> 2*(3+5)+5 </answer> \boxed{7+7}": ("2*(3+5)+5", "answer_tag"),
    "The answer is 2*(3+5)+5.": ("2*(3+5)+5", "stated"),
    "**Final Answer:**\n2*(3+5)+5 = 21": ("2*(3+5)+5 = 21", "stated"),
    "We try 5*5-4 = 21.\n\n2*(3+5)+5": ("2*(3+5)+5", "plain"),
}


@pytest.mark.parametrize("text", FOUND)
@pytest.mark.parametrize("anywhere", [False, True])
def test_the_answer_is_found(text, anywhere):
    assert find_expression(text, anywhere=anywhere) == FOUND[text]


@pytest.mark.parametrize(
    "text", ["", "I cannot do it.", "42", "The answer is unknown.", "- a\n- b", "2024-05-01 it is"]
)
def test_no_answer(text):
    assert find_expression(text, anywhere=False) is None


def test_the_last_arithmetic_counts_anywhere():
    text = "First 3*5 = 15, then I see that 2*(3+5)+5 = 21 works, as wanted."
    assert find_expression(text, anywhere=False) is None
    assert find_expression(text, anywhere=True) == ("2*(3+5)+5 = 21", "last")


HOSTILE = {
    "open tags": "<answer>" * 100_000,
    "digits": "1" * 10**6,
    "operators": "1+" * 500_000,
    "spaces": "answer:" + " " * 10**6,
    "cues": "the answer is " * 70_000,
    "brackets": "(" * 10**6,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_are_searched_in_linear_time(name):
    found = find_expression(HOSTILE[name], anywhere=True)
    assert found is None or check_expression(found[0], PUZZLE)


def test_puzzles_of_metadata():
    assert read_puzzle({"numbers": [3, 5], "target": 8}) == Puzzle((3, 5), 8)
    assert read_puzzle({"nums": ["3", 5.0], "target": "8"}) == Puzzle((3, 5), 8)
    for broken in (
        {},
        {"numbers": [3, 5]},
        {"numbers": "35", "target": 8},
        {"numbers": [True, 5], "target": 8},
    ):
        assert read_puzzle(broken) is None
    assert read_puzzle({"numbers": [3.5, 5], "target": 8}) is None
    assert read_puzzle({"numbers": [float("nan")], "target": 8}) is None
    assert read_puzzle({"numbers": [], "target": 8}) is None


def test_every_answer_of_reasoning_gym_is_right():
    pytest.importorskip("reasoning_gym")
    (part,) = open_source("reasoning-gym:countdown", size=200, seed=7).parts
    for row in part.read():
        puzzle = read_puzzle(row.values["metadata"])
        assert puzzle is not None
        assert check_expression(row.values["answer"], puzzle) is None
        assert check_expression(row.values["answer"] + f" = {puzzle.target}", puzzle) is None
        assert check_expression(row.values["answer"] + " + 1", puzzle) is not None


@given(st.integers(0, 10**6), st.integers(2, 8))
def test_a_random_expression_solves_its_own_puzzle_and_no_other(seed, count):
    rng = random.Random(seed)
    numbers = [rng.randint(1, 99) for _ in range(count)]
    text, value = str(numbers[0]), numbers[0]
    for number in numbers[1:]:
        sign = rng.choice("+-*")
        text = f"({text}) {sign} {number}"
        value = {"+": value + number, "-": value - number, "*": value * number}[sign]
    assert check_expression(text, Puzzle(tuple(sorted(numbers)), value)) is None
    assert check_expression(text, Puzzle(tuple(numbers), value + 1)) is not None
    assert check_expression(text, Puzzle((*numbers, 1), value)) is not None
