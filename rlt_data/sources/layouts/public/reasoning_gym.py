"""Problems of reasoning-gym, generated (`reasoning-gym:NAME`) or saved to a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from rlt_data.sources.layouts.base import Example, Layout, Row, Signatures
from rlt_data.sources.values import read_text, write_json

# Metadata keys of worked steps, and of one correct answer where there are many.
_WORKED = ("answer_cot",)
_ONE_OF_MANY = ("example_answer", "example_correct_answer", "possible_answer")


class ReasoningGym(Layout):
    """Problems of reasoning-gym."""

    name = "reasoning-gym"
    about = "question, answer, metadata (an object with the key source_dataset)"
    signatures: ClassVar[Signatures] = (("question", "answer", "metadata"),)
    looks_into_values = True

    def agrees(self, rows: Sequence[Row]) -> bool:
        """Return whether the metadata of every row names the generator."""
        return all(
            isinstance(metadata := row.take("metadata"), Mapping) and "source_dataset" in metadata
            for row in rows
        )

    def read(self, row: Row) -> Example:
        """Read the problem, with a worked solution where the generator writes one.

        Where many answers are correct, the answer is the example in the metadata.
        """
        question, answer = row.take_text("question"), row.take_text("answer")
        raw = row.take("metadata")
        metadata: Mapping[str, Any] = raw if isinstance(raw, Mapping) else {}
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
