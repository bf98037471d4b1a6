"""What a model wrote, taken apart: the thinking, the solution, and the state of the tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlt_data.formats.definition import BUILT_IN, ConversationFormat, StudentFormat, load_format

State = Literal["closed", "missing_close", "missing_open", "empty", "repeated_tags"]

# Solution tags that occur in the wild without belonging to a format of ours.
_OTHER_SOLUTION_TAGS = (("<answer>", "</answer>"),)


@dataclass(frozen=True)
class ParsedTrace:
    """The parts of one completion, verbatim.

    `think` is None where no thinking can be told from the rest, `solution` where none is stated.
    `think_closed` says whether the closing tag of the thinking was written, whatever the state.
    """

    think: str | None
    solution: str | None
    state: State
    think_closed: bool


def parse_teacher_completion(
    format: ConversationFormat, completion: str, *, prefilled: bool = True
) -> ParsedTrace:
    """Take a teacher's completion apart; the prompt has already opened the explanation.

    The explanation is everything up to the first closing tag, not stripped; one that never closes is
    used whole. With `prefilled=False` the completion opens the explanation itself. States, the first
    that holds: `missing_open` (never opened), `empty` (blank), `missing_close`, `repeated_tags` (opened
    again inside, or a tag after the first closing one), `closed`.
    """
    teacher = format.teacher
    text = completion
    if not prefilled:
        _, opened, text = completion.partition(teacher.open)
        if not opened:
            return ParsedTrace(None, None, "missing_open", think_closed=False)
        text = text.removeprefix(_padding_of(teacher.prefill, teacher.open))
    think, closed, rest = text.partition(teacher.close)
    state: State = "closed"
    if not think.strip():
        state = "empty"
    elif not closed:
        state = "missing_close"
    elif (teacher.open and teacher.open in think + rest) or teacher.close in rest:
        state = "repeated_tags"
    return ParsedTrace(think, None, state, think_closed=bool(closed))


def parse_student_completion(format: ConversationFormat, text: str) -> ParsedTrace:
    """Take a trace apart that holds thinking and solution, such as an imported one.

    The format's own tags, those of the built-in formats and `<answer>` are recognised; the family whose
    thinking tag comes first in the text is the one that counts. States, the first that holds:
    `missing_open`: no opening tag; the thinking is what precedes a closing tag, None where none is either;
    `repeated_tags`: a tag stands more than once, and the first of each is used;
    `empty`: the thinking is blank; `missing_close`: the thinking or the solution never closes, and what
    there is of it is used; `closed`.
    """
    tags = _find_family(format, text)
    if tags is None:
        return ParsedTrace(None, None, "missing_open", think_closed=False)
    before, opened, after = text.partition(tags.think_open)
    if opened and tags.think_close in before:
        opened, after = "", text
    think, closed, rest = (after if opened else text).partition(tags.think_close)
    think = think.removeprefix(tags.think_padding) if opened else think
    solution, solution_closed, marks = _read_solution(format, rest)
    repeated = any(text.count(mark) > 1 for mark in (tags.think_open, tags.think_close, *marks))
    state: State = "closed"
    if not opened:
        state = "missing_open"
    elif repeated:
        state = "repeated_tags"
    elif not think.strip():
        state = "empty"
    elif not closed or not solution_closed:
        state = "missing_close"
    return ParsedTrace(think, solution, state, think_closed=bool(closed))


def _find_family(format: ConversationFormat, text: str) -> StudentFormat | None:
    families = [format.student, *(load_format(name).student for name in BUILT_IN)]
    places = []
    for order, family in enumerate(families):
        found = [p for p in (text.find(family.think_open), text.find(family.think_close)) if p >= 0]
        if found:
            places.append((min(found), order))
    return families[min(places)[1]] if places else None


def _read_solution(format: ConversationFormat, rest: str) -> tuple[str | None, bool, tuple[str, ...]]:
    """The solution after the thinking, whether it is closed, and the tags that mark it."""
    pairs = [
        (s.solution_open, s.solution_close)
        for s in (format.student, *(load_format(n).student for n in BUILT_IN))
    ]
    places = [
        (rest.find(o), i) for i, (o, _) in enumerate([*pairs, *_OTHER_SOLUTION_TAGS]) if o and o in rest
    ]
    if places:
        opening, closing = [*pairs, *_OTHER_SOLUTION_TAGS][min(places)[1]]
        solution, closed, _ = (
            rest.partition(opening)[2].partition(closing) if closing else (rest.partition(opening)[2], "", "")
        )
        return solution, bool(closed) or not closing, tuple(mark for mark in (opening, closing) if mark)
    return rest.strip() or None, True, ()


def _padding_of(prefill: str, opening: str) -> str:
    return prefill.rpartition(opening)[2] if opening else ""
