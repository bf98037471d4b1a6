"""The identity of questions and imported traces: which texts count as the same."""

from __future__ import annotations

import unicodedata

from rlt_data.hashing import hash_content


def normalize_text(text: str) -> str:
    """Normalize a text for comparison: Unicode NFC, LF line ends, no white space around it."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def identify_question(question: str) -> str:
    """Return `questions.question_id`: the content hash of the normalized text."""
    return hash_content("question", normalize_text(question))


def identify_imported_trace(
    question_id: str, completion: str, solution: str | None = None, *, whole: bool = False
) -> str:
    """Return `traces.trace_id` of an imported trace, from its question and its verbatim text.

    `solution` is the solution from a column of its own; None where the text contains everything. `whole`
    means that all of a text without tags was taken as thinking, which makes it another trace than the same
    text without thinking.
    """
    parts = ("imported", question_id, completion, solution)
    return hash_content(*parts, "whole") if whole else hash_content(*parts)
