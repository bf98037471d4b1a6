"""Parse what a model wrote: the thinking, the solution, and the state of the tags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlt_data.formats.definition import BUILT_IN, ConversationFormat, StudentFormat, load_built_in

State = Literal["closed", "missing_close", "missing_open", "empty", "repeated_tags"]

# Solution tags that occur in published traces but belong to no built-in format.
_OTHER_SOLUTION_TAGS = (("<answer>", "</answer>"),)


@dataclass(frozen=True)
class ParsedTrace:
    """The parts of one completion, verbatim.

    `think` is None where the thinking cannot be distinguished from the rest, `solution` where none is stated.
    `state` describes the tags of the thinking, since the solution is replaced by the true one anyway;
    `solution_closed` is whether the stated solution ends with its closing tag.
    """

    think: str | None
    solution: str | None
    state: State
    solution_closed: bool = True


def parse_teacher_completion(
    format: ConversationFormat, completion: str, *, prefilled: bool = True
) -> ParsedTrace:
    """Parse a teacher's completion, which continues an explanation that the prompt has opened.

    The explanation is everything up to the first closing tag, not stripped; without a closing tag it is the
    whole completion. With `prefilled=False` the completion opens the explanation itself. The state is the
    first that applies: `missing_open` (never opened), `missing_close`, `empty` (blank), `repeated_tags`
    (opened again inside, or a tag after the first closing one), `closed`.
    """
    teacher = format.teacher
    text = completion
    if not prefilled:
        _, opened, text = completion.partition(teacher.open)
        if not opened:
            return ParsedTrace(None, None, "missing_open")
        text = text.removeprefix(teacher.prefill.rpartition(teacher.open)[2])
    think, closed, rest = text.partition(teacher.close)
    state: State = "closed"
    if not closed:
        state = "missing_close"
    elif not think.strip():
        state = "empty"
    elif teacher.open in think + rest or teacher.close in rest:
        state = "repeated_tags"
    return ParsedTrace(think, None, state)


def parse_student_completion(format: ConversationFormat, text: str) -> ParsedTrace:
    """Parse a trace with thinking and solution, such as an imported one.

    The format's own tags, those of the built-in formats and `<answer>` are recognized; of several, those
    whose thinking tag comes first in the text are used. The state is the first that applies:

    - `missing_open`: no opening tag before a closing one. The thinking is what precedes the closing
      tag (the prompt may have opened it); without any tag it is None.
    - `missing_close`: the thinking never closes; it is all that follows the opening tag.
    - `empty`: the thinking is blank.
    - `repeated_tags`: a tag occurs more than once; the first opening and the next closing one are used.
    - `closed`.
    """
    tags = _find_tags(format, text)
    if tags is None:
        return ParsedTrace(None, None, "missing_open", solution_closed=False)
    before, opened, after = text.partition(tags.think_open)
    if not opened or tags.think_close in before:
        think, _, rest = text.partition(tags.think_close)
        solution, solution_closed, _ = _read_solution(format, rest)
        return ParsedTrace(think, solution, "missing_open", solution_closed)
    think, closed, rest = after.partition(tags.think_close)
    think = think.removeprefix(tags.think_padding)
    if not closed:
        return ParsedTrace(think, None, "missing_close", solution_closed=False)
    solution, solution_closed, marks = _read_solution(format, rest)
    state: State = "closed"
    if not think.strip():
        state = "empty"
    elif any(text.count(mark) > 1 for mark in (tags.think_open, tags.think_close, *marks)):
        state = "repeated_tags"
    return ParsedTrace(think, solution, state, solution_closed)


def find_response(text: str, parsed: ParsedTrace) -> str | None:
    """Return what follows the thinking of a completion, where its answer is sought.

    That is all of a text without tags, and None where the thinking never closes.
    """
    if parsed.think is None:
        return text
    if parsed.state == "missing_close":
        return None
    return parsed.solution or ""


def _list_tags(format: ConversationFormat) -> list[StudentFormat]:
    return [format.student, *(load_built_in(name).student for name in BUILT_IN)]


def _find_tags(format: ConversationFormat, text: str) -> StudentFormat | None:
    found = [
        (position, order, tags)
        for order, tags in enumerate(_list_tags(format))
        for position in (text.find(tags.think_open), text.find(tags.think_close))
        if position >= 0
    ]
    return min(found, key=lambda match: match[:2])[2] if found else None


def _read_solution(format: ConversationFormat, rest: str) -> tuple[str | None, bool, tuple[str, ...]]:
    """Parse what follows the thinking: the solution, whether it closes, and the tags around it.

    Without a solution tag the solution is all that follows, stripped of the separating blank lines.
    """
    pairs = [(tags.solution_open, tags.solution_close) for tags in _list_tags(format)]
    found = [
        (rest.find(pair[0]), pair) for pair in (*pairs, *_OTHER_SOLUTION_TAGS) if pair[0] and pair[0] in rest
    ]
    if not found:
        return rest.strip() or None, bool(rest.strip()), ()
    _, (opening, closing) = min(found, key=lambda match: match[0])
    inside = rest.partition(opening)[2]
    if not closing:
        return inside, True, (opening,)
    solution, closed, _ = inside.partition(closing)
    return solution, bool(closed), (opening, closing)
