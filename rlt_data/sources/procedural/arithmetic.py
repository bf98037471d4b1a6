"""Chained addition and subtraction, and explanations of it of mixed quality.

The problems are those of reasoning-gym's `chain_sum`. An explanation is written in one of several
styles, some of which teach well and some not, and its style can be recognized from its text: so a data
set, a ranking or a trained teacher can be evaluated without a model.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, assert_never, get_args

PREAMBLE = "State the final answer to the following arithmetic problem:"

Style = Literal["good", "skip", "wrong", "bogus", "leak", "padded_leak", "ramble"]
"""good: every step. skip: a result every second step. wrong: a wrong result that is carried on. bogus:
made-up steps that end on the answer. leak: the answer alone. padded_leak: filler words, then the answer.
ramble: filler words alone."""

STYLES: tuple[Style, ...] = get_args(Style)

OPENERS = ("Well", "Hmm", "Okay")
IDLE_WORDS = ("well", "hmm", "okay", "let", "me", "see", "now", "think")

_QUESTION = re.compile(rf"\s*(?:{re.escape(PREAMBLE)})?\s*(-?\d+(?: [+-] -?\d+)*) ?=?\s*")
_STEP = re.compile(r"(?:First|, then) (-?\d+(?: [+-] \d+)*) = (-?\d+)")
_LEAK = re.compile(r"\bmust be (-?\d+)")


@dataclass(frozen=True)
class Chain:
    """Terms joined by + and -, evaluated from left to right."""

    terms: tuple[int, ...]
    operators: tuple[str, ...]

    @property
    def results(self) -> tuple[int, ...]:
        """The first term and the value after each operation; the last is the answer."""
        values = [self.terms[0]]
        for operator, term in zip(self.operators, self.terms[1:], strict=True):
            values.append(values[-1] + term if operator == "+" else values[-1] - term)
        return tuple(values)

    @property
    def question(self) -> str:
        """The problem in the words of reasoning-gym."""
        steps = (f" {sign} {term}" for sign, term in zip(self.operators, self.terms[1:], strict=True))
        return f"{PREAMBLE} {self.terms[0]}{''.join(steps)} ="


def sample_chain(rng: random.Random, terms: int, *, largest: int = 9) -> Chain:
    """Draw a chain of `terms` terms from 0 to `largest`, distributed as in reasoning-gym's `chain_sum`."""
    numbers = tuple(rng.randint(0, largest) for _ in range(terms))
    return Chain(numbers, tuple(rng.choice("+-") for _ in range(terms - 1)))


def parse_chain(question: str) -> Chain | None:
    """Parse a problem, with or without the words of reasoning-gym around it; None for any other text."""
    found = _QUESTION.fullmatch(question)
    if not found:
        return None
    parts = found[1].split(" ")
    return Chain(tuple(int(term) for term in parts[::2]), tuple(parts[1::2]))


def write_explanation(chain: Chain, style: Style, rng: random.Random, *, longest_ramble: int = 10) -> str:
    """Write an explanation of `chain` in `style` with at most `longest_ramble` filler words."""
    results = list(chain.results)
    answer = results[-1]
    match style:
        case "good":
            return _write_steps(chain, results, every=1)
        case "skip":
            return _write_steps(chain, results, every=2)
        case "wrong":
            shift = rng.choice((-3, -2, -1, 1, 2, 3))
            first = rng.randrange(1, len(results))
            results[first:] = [value + shift for value in results[first:]]
            return _write_steps(chain, results, every=1)
        case "bogus":
            results[1:-1] = [value + rng.randint(1, 9) * rng.choice((-1, 1)) for value in results[1:-1]]
            return _write_steps(chain, results, every=1)
        case "leak":
            return f"It must be {answer}."
        case "padded_leak":
            return f"{_write_filler(rng, longest_ramble)}, it must be {answer}."
        case "ramble":
            return f"{_write_filler(rng, longest_ramble)}."
        case _:
            assert_never(style)


def classify_explanation(question: str, think: str) -> Style | Literal["other"]:
    """Recognize the style of an explanation from its text alone; `other` where it fits none.

    `good` means that every step is given in order with its correct result, and the last result is the
    answer. Steps with a wrong result are `bogus` where they still end on the answer, else `wrong`.
    """
    chain = parse_chain(question)
    if chain is None:
        return "other"
    answer = chain.results[-1]
    steps = _STEP.findall(think)
    if steps and "".join(f"{a} = {b}" for a, b in steps) == _strip_joints(think):
        right = [(left, int(value)) for left, value in steps]
        if all(_evaluate(left) == value for left, value in right) and _chains_up(chain, right):
            return "good" if all(left.count(" ") == 2 for left, _ in right) else "skip"
        return "bogus" if right[-1][1] == answer else "wrong"
    leak = _LEAK.search(think)
    words = think[: leak.start()] if leak else think
    if re.search(r"\d", words):
        return "other"
    if leak:
        padded = len(words.split()) > 1
        return ("padded_leak" if padded else "leak") if int(leak[1]) == answer else "other"
    return "ramble" if words.strip() else "other"


def _write_filler(rng: random.Random, longest: int) -> str:
    words = [rng.choice(OPENERS)]
    words += [rng.choice(IDLE_WORDS) for _ in range(rng.randint(2, max(2, longest - 1)))]
    return " ".join(words)


def _write_steps(chain: Chain, results: list[int], *, every: int) -> str:
    last = len(chain.operators)
    ends = [k for k in range(1, last + 1) if k % every == 0 or k == last]
    sentences, begin = [], 0
    for end in ends:
        signs = (f" {chain.operators[k]} {chain.terms[k + 1]}" for k in range(begin, end))
        sentences.append(f"{results[begin]}{''.join(signs)} = {results[end]}")
        begin = end
    return "First " + ", then ".join(sentences) + "."


def _strip_joints(think: str) -> str:
    return re.sub(r"(?:First|, then) ", "", think.strip().removesuffix("."))


def _evaluate(expression: str) -> int:
    return Chain(
        tuple(int(t) for t in expression.split(" ")[::2]), tuple(expression.split(" ")[1::2])
    ).results[-1]


def _chains_up(chain: Chain, steps: list[tuple[str, int]]) -> bool:
    """Return whether the steps, joined, are the operations of the problem in order."""
    rebuilt = steps[0][0]
    for (_, value), (left, _) in pairwise(steps):
        if not left.startswith(f"{value} "):
            return False
        rebuilt += left.removeprefix(str(value))
    return rebuilt == chain.question.removeprefix(PREAMBLE).strip().removesuffix(" =")
