"""GPQA: multiple choice, with the choices in an order that depends on the question alone."""

from __future__ import annotations

from typing import ClassVar

from rlt_data.hashing import hash_content
from rlt_data.sources.layouts.base import Example, Layout, Row, Signatures
from rlt_data.sources.rows import RowError
from rlt_data.tasks.answers import render_answer

_WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
_LETTERS = "ABCD"


class Gpqa(Layout):
    """Idavidrein/gpqa, any of its subsets."""

    name = "gpqa"
    about = "Question, Correct Answer, Incorrect Answer 1 to 3, and optionally Explanation, Subdomain"
    signatures: ClassVar[Signatures] = (("question", "correct answer", *map(str.casefold, _WRONG)),)

    def read(self, row: Row) -> Example:
        """Read question and choices as one text; the answer is the letter of the correct choice.

        Choices are sorted by their hashes with the question: the position of the correct one is as good as
        random, and reproducible. The solution is the published explanation, where there is one, followed by
        the letter. Raises `RowError` where choices are missing or equal.
        """
        question, right = row.take_text("Question"), row.take_text("Correct Answer")
        wrong = [row.take_text(name) for name in _WRONG]
        explanation = row.take_text("Explanation")
        metadata = row.take_rest()
        if question is None or right is None:
            return Example(question, metadata=metadata)
        if any(choice is None for choice in wrong):
            raise RowError("missing_choice", f"one of the columns {', '.join(_WRONG)} is blank")
        choices = [choice.strip() for choice in (right, *wrong) if choice is not None]
        if len(set(choices)) < len(choices):
            raise RowError("repeated_choice", "two of the four choices are equal")
        ordered = sorted(choices, key=lambda choice: hash_content("gpqa", question.strip(), choice))
        letter = _LETTERS[ordered.index(right.strip())]
        listed = "\n".join(f"({name}) {choice}" for name, choice in zip(_LETTERS, ordered, strict=True))
        return Example(
            f"{question.strip()}\n\n{listed}\n\nAnswer with the letter of the right choice.",
            f"{explanation.strip()}\n\n{render_answer(letter)}" if explanation else None,
            letter,
            metadata={"correct_answer": right.strip(), "choices": ordered, **metadata},
        )
