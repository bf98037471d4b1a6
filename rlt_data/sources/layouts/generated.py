"""Problems made by reasoning-gym, as `reasoning-gym:NAME` yields them or as they were saved to a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rlt_data.sources.layouts.base import Example, Layout, Row, Signatures
from rlt_data.sources.values import read_text, write_json

# Where generators put steps that lead to the answer, and one right answer where many are.
_WORKED = ("answer_cot",)
_ONE_OF_MANY = ("example_answer", "example_correct_answer", "possible_answer")


class ReasoningGym(Layout):
    """Problems of reasoning-gym."""

    name = "reasoning-gym"
    about = "question, answer, metadata (an object that names source_dataset)"
    signatures: ClassVar[Signatures] = (("question", "answer", "metadata"),)
    looks_into_values = True

    def agrees(self, rows: Sequence[Row]) -> bool:
        """Say whether the metadata of every row names the generator."""
        return all(
            isinstance(metadata := row.take("metadata"), Mapping) and "source_dataset" in metadata
            for row in rows
        )

    def read(self, row: Row) -> Example:
        """Read the problem; the solution is worked where the generator works it.

        Where many answers are right, the one that the metadata gives as an example is the answer.
        """
        question, answer = row.take_text("question"), row.take_text("answer")
        given = row.take("metadata")
        metadata: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        solution = _find_text(metadata, _WORKED)
        return Example(
            question,
            solution,
            answer or _find_text(metadata, _ONE_OF_MANY),
            metadata={**row.take_rest(), **metadata},
        )


def _find_text(metadata: Mapping[str, Any], names: Sequence[str]) -> str | None:
    for name in names:
        value = metadata.get(name)
        text = write_json(value) if isinstance(value, list | dict) else read_text(value, name)
        if text is not None:
            return text
    return None
