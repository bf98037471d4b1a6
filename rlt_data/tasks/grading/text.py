"""The grader `text`: plain equality of normalised texts, a second opinion that knows no mathematics."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from rlt_data.tasks.extraction import extract
from rlt_data.tasks.grading.base import Extraction, Grade, GraderName, GraderSettings, Item, make_grade

_DROPPED = re.compile(
    r"\\(?:left|right|displaystyle|quad|qquad)(?![A-Za-z])|\$"
    r"|(?<=\d)(?:\{,\}|,)(?=\d{3}(?!\d))"
)
_BLANK = r"(?:\\[,;:! ]|\s)"
_GROUPS = re.compile(rf"(?<![\d.])[1-9]\d{{0,2}}(?:,?{_BLANK}+\d{{3}})+(?!\d)")
_BLANKS = re.compile(rf"{_BLANK}+")
_TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox)\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_WRAPPING = re.compile(r"^(?:\*+|\\\(|\\\[)+|(?:\*+|\\\)|\\\]|\.)+$")


class TextGrader:
    """Compares answers as texts, after case, blanks, and the marks of LaTeX that mean nothing are removed."""

    name: GraderName = "text"
    version = "2"

    def __init__(self, settings: GraderSettings) -> None:
        del settings

    def grade(self, items: Sequence[Item], extraction: Extraction) -> list[Grade]:
        """Grade completions; the grades come in the order of the items."""
        return [self._grade(item, extraction) for item in items]

    def _grade(self, item: Item, extraction: Extraction) -> Grade:
        answer = extract(item.response, item.completion, extraction)
        equal = (
            answer.text is not None
            and item.answer is not None
            and normalize_text(answer.text) == normalize_text(item.answer)
        )
        return make_grade(
            self,
            item,
            extraction,
            answer=answer.text,
            found=answer.found,
            verdict="correct" if equal else "wrong",
        )

    def close(self) -> None:
        """Do nothing: this grader holds no process."""


def normalize_text(text: str) -> str:
    """Normalise an answer: 1{,}000 and 1000, \\dfrac and \\frac, \\text{A} and a are the same."""
    text = _WRAPPING.sub("", unicodedata.normalize("NFKC", text).strip())
    text = _FRACTION.sub(r"\\frac", _TEXT.sub(r"\1", text))
    text = _DROPPED.sub("", _GROUPS.sub(_join_groups, text))
    # Between digits blanks count: 1 2 is not 12.
    return re.sub(r"(?<!\d) | (?!\d)", "", _BLANKS.sub(" ", text)).casefold()


def _join_groups(match: re.Match[str]) -> str:
    # A comma and a plain blank part the items of a list.
    return match[0] if re.search(r",\s", match[0]) else re.sub(rf"{_BLANK}|,", "", match[0])
