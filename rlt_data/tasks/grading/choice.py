"""The grader `choice`: did the completion choose the right letter of a multiple choice?"""

from __future__ import annotations

from collections.abc import Sequence

from rlt_data.tasks.extraction import COMPLETION_LIMIT
from rlt_data.tasks.grading.base import Extraction, Grade, GraderName, GraderSettings, Item, make_grade
from rlt_data.tasks.letters import find_choice, list_letters


class ChoiceGrader:
    """Compares the letter that a completion chooses with the right one; see `find_choice`.

    Both extractions find letters by the same rules, `stated` in the response and `last` in the whole
    completion: a letter that is only mentioned is never the answer.
    """

    name: GraderName = "choice"
    version = "1"

    def __init__(self, settings: GraderSettings) -> None:
        del settings

    def grade(self, items: Sequence[Item], extraction: Extraction) -> list[Grade]:
        """Grade completions; the grades come in the order of the items."""
        return [self._grade(item, extraction) for item in items]

    def _grade(self, item: Item, extraction: Extraction) -> Grade:
        text = item.response if extraction == "stated" else item.completion
        found = find_choice(text[-COMPLETION_LIMIT:], item.options) if text is not None else None
        right = (item.answer or "").strip().strip("()").upper()
        letters = list_letters(item.options)
        if right and (len(right) > 1 or right not in letters):
            detail = f"the true answer is not one of the letters {letters[0]} to {letters[-1]}"
            answer = None if found is None else found.letter
            return Grade(item.key, self.name, self.version, extraction, answer, None, "ungradable", detail)
        if found is None:
            return make_grade(self, item, extraction, answer=None, found=None, verdict="no_answer")
        return make_grade(
            self,
            item,
            extraction,
            answer=found.letter or found.text,
            found=found.how,
            verdict="correct" if found.letter == right else "wrong",
            detail="the answer is not one option" if found.letter is None else None,
        )

    def close(self) -> None:
        """Do nothing: this grader holds no process."""
