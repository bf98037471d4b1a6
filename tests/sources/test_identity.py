"""Which questions count as the same."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from rlt_data.sources.identity import identify_imported_trace, identify_question, normalize_text


@given(st.text())
def test_spelling_variants_of_one_text_are_one_question(text: str) -> None:
    variants = (
        unicodedata.normalize("NFD", text),
        text.replace("\r\n", "\n").replace("\n", "\r\n"),
        f"\n  {text}\t",
    )
    first, *others = [identify_question(variant) for variant in (text, *variants)]
    if "\r" not in text:
        assert others == [first] * 3
    assert normalize_text(normalize_text(text)) == normalize_text(text)


def test_other_texts_are_other_questions() -> None:
    texts = ("What is 1 + 1?", "what is 1 + 1?", "What is 1  + 1?", "What is 1 + 1", "")
    assert len({identify_question(text) for text in texts}) == len(texts)


def test_a_trace_is_identified_by_question_text_and_stated_solution() -> None:
    traces = {
        identify_imported_trace(question, text, solution)
        for question in ("q1", "q2")
        for text in ("think", "think ")
        for solution in (None, "4")
    }
    assert len(traces) == 8
