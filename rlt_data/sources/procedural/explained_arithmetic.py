"""Arithmetic problems with one explanation each, of mixed quality: `arithmetic:chain_sum`.

A teacher can be fine-tuned on them where no dataset can be downloaded. They need nothing but Python.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlt_data.bounds import STRICT, Weight
from rlt_data.errors import UsageError
from rlt_data.hashing import hash_content
from rlt_data.sources.procedural.arithmetic import STYLES, Style, sample_chain, write_explanation
from rlt_data.sources.rows import BadRow, SourceRow
from rlt_data.suggestions import suggest_name
from rlt_data.validation import describe_problem

PREFIX = "arithmetic:"
NAMES = ("chain_sum",)
_VERSION = 1


class ArithmeticOptions(BaseModel):
    """Options of the generator. Each style has a weight; see `Style` in `arithmetic.py` beside this file."""

    model_config = ConfigDict(**STRICT, validate_default=True)

    min_terms: int = Field(3, ge=2, le=1_000, description="Minimum number of terms of a sum.")
    max_terms: int = Field(3, ge=2, le=1_000, description="Maximum number of terms of a sum.")
    good: Weight = Field(40, description="Weight of this style: every step.")
    skip: Weight = Field(5, description="Weight of this style: a result every second step.")
    wrong: Weight = Field(4, description="Weight of this style: a wrong result that is carried on.")
    bogus: Weight = Field(3, description="Weight of this style: made-up steps that end on the answer.")
    leak: Weight = Field(20, description="Weight of this style: the answer alone.")
    padded_leak: Weight = Field(14, description="Weight of this style: filler words, then the answer.")
    ramble: Weight = Field(14, description="Weight of this style: filler words alone.")

    @property
    def styles(self) -> dict[Style, float]:
        """Weight of each style."""
        return {style: getattr(self, style) for style in STYLES}


@dataclass(frozen=True)
class ArithmeticPart:
    """`size` different problems with their explanations, the same for the same seed and options."""

    layout: ClassVar[str | None] = None
    dataset: ClassVar[str | None] = None

    size: int
    seed: int
    options: ArithmeticOptions

    @property
    def name(self) -> str:
        """The name of the generator, with its prefix."""
        return f"{PREFIX}{NAMES[0]}"

    def count_rows(self) -> int:
        """Return the requested number of problems."""
        return self.size

    def take_stamp(self) -> None:
        """Return None: nothing writes to it."""

    def identify(self) -> str:
        """Return the hash of name, version, size, seed and options."""
        return hash_content(self.name, _VERSION, self.size, self.seed, self.options.model_dump())

    def read(self) -> Iterator[SourceRow | BadRow]:
        """Generate the problems one by one, in the plain layout, with the style as a further column."""
        rng = random.Random(self.seed)
        weights = self.options.styles
        seen: set[str] = set()
        while len(seen) < self.size:
            terms = rng.randint(self.options.min_terms, self.options.max_terms)
            chain = sample_chain(rng, terms)
            (style,) = rng.choices(list(weights), list(weights.values()))
            longest = 60 if rng.random() < 0.1 else 10
            trace = write_explanation(chain, style, rng, longest_ramble=longest)
            if chain.question in seen:
                continue
            number = len(seen)
            seen.add(chain.question)
            answer = str(chain.results[-1])
            values = {"question": chain.question, "answer": answer, "trace": trace, "style": style}
            yield SourceRow(number, values)


def open_arithmetic(spec: str, *, size: int, seed: int, options: Mapping[str, Any]) -> ArithmeticPart:
    """Open `arithmetic:chain_sum` and check its options.

    Raises `UsageError` for an unknown name or option, and where fewer than `size` different problems exist.
    """
    name = spec.removeprefix(PREFIX)
    if name not in NAMES:
        raise UsageError(f"there is no generator {PREFIX}{name}", remedy=suggest_name(name, NAMES))
    try:
        checked = ArithmeticOptions.model_validate(dict(options))
    except ValidationError as error:
        problem = error.errors()[0]
        option = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            what, remedy = (
                f"{spec} has no option {option!r}",
                suggest_name(option, ArithmeticOptions.model_fields),
            )
            raise UsageError(what, where="--option", remedy=remedy) from error
        what = f"{spec}: option {option!r}: {describe_problem(problem)}"
        raise UsageError(what, where="--option") from error
    if checked.min_terms > checked.max_terms:
        raise UsageError(f"{spec}: min_terms is greater than max_terms", where="--option")
    if not sum(checked.styles.values()):
        what = f"{spec}: every style has the weight 0"
        raise UsageError(what, where="--option", remedy="give one style a positive weight")
    existing = sum(10**n * 2 ** (n - 1) for n in range(checked.min_terms, checked.max_terms + 1))
    # Drawing at random until the last few problems have come up would take too long.
    if size > existing * 3 // 4:
        raise UsageError(
            f"{spec}: {size} different problems were requested, and only {existing} exist",
            remedy="raise max_terms, or lower --size to three quarters of that",
        )
    return ArithmeticPart(size, seed, checked)
