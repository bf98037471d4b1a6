"""Scored tokens spell explanation and solution, and texts that cannot be compared are shown."""

from __future__ import annotations

import copy
import unicodedata
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from rlt_data.formats import ConversationFormat
from rlt_data.reward.scoring.scoring_model import ScoringModel
from rlt_data.reward.scoring.texts import (
    FailedText,
    ScoreRequest,
    ScoringText,
    build_student_texts,
    build_teacher_texts,
    find_failure,
)


@settings(deadline=None, max_examples=50)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.text("add7 \n✓", min_size=1))
def test_scored_tokens_spell_explanation_and_solution(
    student: ScoringModel, short_format: ConversationFormat, think: str, solution: str
) -> None:
    if not solution.strip():
        return
    # The tokenizer normalises text so, as Qwen2's does; no other text is what its tokens spell.
    think = unicodedata.normalize("NFC", think)
    request = ScoreRequest("r", "add 3 and 4", solution, think)
    for build in (build_student_texts, build_teacher_texts):
        (text,) = build(short_format, student.tokenizer, [request])
        assert isinstance(text, ScoringText)
        decoded = student.tokenizer.decode(text.think_ids)
        assert decoded == think
        assert all(0 <= a < b <= len(think) for a, b in text.think_characters)
        if build is build_student_texts:
            ids = text.token_ids[text.solution.start : text.solution.stop]
            assert student.tokenizer.decode(ids) == solution
        else:
            assert not text.solution
        # Nothing after the last scored token is kept.
        assert len(text.token_ids) == max(text.think.stop, text.solution.stop)
        assert text.total_tokens > len(text.token_ids)


def make_text(ids: list[int], characters: list[tuple[int, int]]) -> ScoringText:
    return ScoringText([0, *ids], 10, range(1, 1 + len(ids)), range(0), characters, [])


def test_different_think_tokens_of_teacher_and_student_are_shown() -> None:
    request = ScoreRequest("r", "q", "s", "take it")
    student = make_text([5, 6], [(0, 4), (4, 7)])
    assert find_failure(request, student, make_text([5, 6], [(0, 4), (4, 7)])) is None
    failure = find_failure(request, student, make_text([5, 7, 8], [(0, 4), (4, 5), (5, 7)]))
    assert isinstance(failure, FailedText)
    assert failure.reason == "think_tokens_differ"
    assert "' it' between 'take' and ''" in failure.detail
    assert "' ' between 'take' and 'it'" in failure.detail
    shorter = find_failure(request, student, make_text([5], [(0, 4)]))
    assert shorter is not None
    assert "no further token" in shorter.detail


def test_a_span_that_no_token_lies_inside_is_shown(
    short_format: ConversationFormat, tiny_tokenizer: Any
) -> None:
    """A tag of the tokenizer that swallows the explanation with its surroundings leaves it no token."""
    greedy = copy.deepcopy(tiny_tokenizer)
    greedy.add_tokens([AddedToken("\n\nadd<", normalized=False)])
    (text,) = build_student_texts(short_format, greedy, [ScoreRequest("r", "q", "so 7", "add")])
    assert isinstance(text, FailedText)
    assert text.reason == "misaligned_tokens"
    assert "add" in text.detail


def test_over_long_texts_name_their_length(student: ScoringModel, short_format: ConversationFormat) -> None:
    request = ScoreRequest("r", "q", "so 7", "add " * 100)
    (text,) = build_student_texts(short_format, student.tokenizer, [request], context=50)
    assert isinstance(text, FailedText)
    assert text.reason == "over_context"
    assert "at most 50" in text.detail
