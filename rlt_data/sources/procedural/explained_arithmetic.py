"""Explained chains, `arithmetic:chain_sum`: problems with one explanation each, of mixed quality.

What a teacher's warm-up is trained on where nothing is to be downloaded. Nothing but Python is needed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rlt_data.errors import UsageError
from rlt_data.hashing import hash_content
from rlt_data.sources.procedural.arithmetic import STYLES, Style, sample_chain, write_explanation
from rlt_data.sources.rows import BadRow, SourceRow

PREFIX = "arithmetic:"
NAMES = ("chain_sum",)
_VERSION = 1


class ArithmeticOptions(BaseModel):
    """Options of explained chains. Styles are weights; see `rlt_data.sources.procedural.arithmetic.Style`."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    min_terms: int = Field(3, ge=2, description="Fewest terms of a chain.")
    max_terms: int = Field(3, ge=2, description="Most terms of a chain.")
    good: float = Field(40, ge=0, description="Every step.")
    skip: float = Field(5, ge=0, description="A result every second step.")
    wrong: float = Field(4, ge=0, description="A slip that is carried on.")
    bogus: float = Field(3, ge=0, description="Made-up steps that end on the answer.")
    leak: float = Field(20, ge=0, description="The answer at once.")
    padded_leak: float = Field(14, ge=0, description="Idle words, then the answer.")
    ramble: float = Field(14, ge=0, description="Idle words alone.")

    @property
    def styles(self) -> dict[Style, float]:
        """Weight of each style."""
        return {style: getattr(self, style) for style in STYLES}


@dataclass(frozen=True)
class ArithmeticPart:
    """`size` different chains with their explanations, the same for the same seed and options."""

    size: int
    seed: int
    options: ArithmeticOptions

    @property
    def name(self) -> str:
        """The generator, as the user names it."""
        return f"{PREFIX}{NAMES[0]}"

    def count_rows(self) -> int:
        """Return how many problems are asked for."""
        return self.size

    def identify(self) -> str:
        """Return the hash of everything that decides the rows."""
        return hash_content(self.name, _VERSION, self.size, self.seed, self.options.model_dump())

    def read(self) -> Iterator[SourceRow | BadRow]:
        """Make the problems one by one, in the plain layout, the style as a further column."""
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
    """Open `arithmetic:chain_sum`, with its options checked.

    Raises `UsageError` for an unknown name or option, or for more problems than there are.
    """
    name = spec.removeprefix(PREFIX)
    if name not in NAMES:
        raise UsageError(
            f"there are no explained problems named {name!r}", remedy=f"one of: {', '.join(NAMES)}"
        )
    try:
        checked = ArithmeticOptions.model_validate(dict(options))
    except ValidationError as error:
        problem = error.errors()[0]
        raise UsageError(
            f"{spec} refuses an option: {problem['msg']}",
            where=".".join(str(part) for part in problem["loc"]),
            remedy=f"its options: {', '.join(ArithmeticOptions.model_fields)}",
        ) from error
    if checked.min_terms > checked.max_terms:
        raise UsageError(f"{spec}: min_terms is above max_terms", remedy="swap them")
    if not sum(checked.styles.values()):
        raise UsageError(f"{spec}: all styles weigh nothing", remedy="leave a style above 0")
    there_are = sum(10**n * 2 ** (n - 1) for n in range(checked.min_terms, checked.max_terms + 1))
    # Drawing the last few of all chains at random would take for ever.
    if size > there_are * 3 // 4:
        raise UsageError(
            f"{spec}: {size} different problems are asked for, and {there_are} exist",
            remedy="raise max_terms",
        )
    return ArithmeticPart(size, seed, checked)
