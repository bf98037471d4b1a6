"""Conversations rendered through a model's own chat template, with character spans.

The template gives the layout (see `rlt_data.formats.layout`); the texts are then inserted. So the content
of a question or an explanation, tags of the format or of the template included, cannot change the layout,
a template that rewrites contents (strips thinking, trims) has nothing to rewrite, and every span is exact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlt_data.errors import InputError
from rlt_data.formats.definition import PLACEHOLDER, ConversationFormat, StudentFormat
from rlt_data.formats.layout import ChatTokenizer, TemplateLayout, explain_template, find_layout

_SURROGATE = re.compile(r"[\ud800-\udfff]")

Segment = tuple[str | None, str]


@dataclass(frozen=True)
class RenderedText:
    """A text and the half-open character spans of its parts.

    Spans: `question`, `solution`, `think` where present; `prompt` from 0 to where the model begins to
    write; `assistant` the content of the assistant's turn.
    """

    text: str
    spans: Mapping[str, tuple[int, int]]


def render_teacher_prompt(
    format: ConversationFormat, tokenizer: ChatTokenizer, question: str, solution: str
) -> RenderedText:
    """Render the teacher's prompt, up to and including the opening tag of the explanation.

    Raises `ModelError` where the tokenizer has no usable chat template, `InputError` for a text that is
    not valid Unicode.
    """
    return render_teacher_text(format, tokenizer, question, solution, "", closing="")


def render_teacher_text(
    format: ConversationFormat,
    tokenizer: ChatTokenizer,
    question: str,
    solution: str,
    think: str,
    *,
    closing: str,
) -> RenderedText:
    """Render the teacher's prompt and its explanation, followed by `closing` (the closing tag, or "").

    Raises as `render_teacher_prompt`.
    """
    teacher = format.teacher
    values = _check_texts(question=question, solution=solution, think=think)
    layout = find_layout(tokenizer, with_system=bool(teacher.system))
    segments = _fill_prompt(layout, teacher.system, teacher.user, values)
    begin = len(segments)
    segments += _fill(teacher.prefill, values)
    written = len(segments)
    segments += [("think", think), (None, closing)]
    return _join(segments, assistant=(begin, len(segments)), prompt_end=written)


def render_student_prompt(
    format: ConversationFormat, tokenizer: ChatTokenizer, question: str
) -> RenderedText:
    """Render the student's prompt, up to where its own turn begins. Raises as `render_teacher_prompt`."""
    student = format.student
    values = _check_texts(question=question)
    layout = _find_student_layout(student, tokenizer)
    segments = _fill_prompt(layout, student.system, student.user, values)
    return _join(segments, assistant=(len(segments), len(segments)), prompt_end=len(segments))


def render_student_text(
    format: ConversationFormat, tokenizer: ChatTokenizer, question: str, think: str, solution: str
) -> RenderedText:
    """Render the student's whole conversation: question, explanation and the true solution.

    `solution` is the true one, whatever the teacher wrote (label substitution). The text ends with the end
    token that the template writes after the assistant's turn, without the white space after it.
    Raises as `render_teacher_prompt`.
    """
    student = format.student
    values = _check_texts(question=question, think=think, solution=solution)
    layout = _find_student_layout(student, tokenizer)
    segments = _fill_prompt(layout, student.system, student.user, values)
    begin = len(segments)
    segments += _fill(student.assistant, values)
    end = len(segments)
    segments.append((None, layout.end))
    return _join(segments, assistant=(begin, end), prompt_end=begin)


def build_student_messages(
    format: ConversationFormat, question: str, think: str, solution: str
) -> list[dict[str, str]]:
    """Build the student's conversation as role and content, with the true solution."""
    student = format.student
    values = _check_texts(question=question, think=think, solution=solution)
    messages = [{"role": "system", "content": student.system}] if student.system else []
    for role, template in (("user", student.user), ("assistant", student.assistant)):
        messages.append({"role": role, "content": "".join(text for _, text in _fill(template, values))})
    return messages


def build_teacher_messages(format: ConversationFormat, question: str, solution: str) -> list[dict[str, str]]:
    """Build the teacher's conversation; the last message is the beginning of the assistant's turn."""
    teacher = format.teacher
    values = _check_texts(question=question, solution=solution)
    messages = [{"role": "system", "content": teacher.system}] if teacher.system else []
    for role, template in (("user", teacher.user), ("assistant", teacher.prefill)):
        messages.append({"role": role, "content": "".join(text for _, text in _fill(template, values))})
    return messages


def _find_student_layout(student: StudentFormat, tokenizer: ChatTokenizer) -> TemplateLayout:
    layout = find_layout(tokenizer, with_system=bool(student.system))
    if layout.before_assistant.rstrip().endswith(student.think_open):
        raise explain_template(
            tokenizer,
            f"the chat template opens the thinking itself with {student.think_open!r}, and the format opens "
            "it a second time",
        )
    return layout


def _check_texts(**texts: str) -> dict[str, str]:
    for name, text in texts.items():
        found = _SURROGATE.search(text)
        if found:
            raise InputError(
                f"the {name} is not valid Unicode: it contains the lone surrogate U+{ord(found[0]):04X}",
                where=f"character {found.start()} of the {name}",
                remedy="repair the encoding of the source; such text cannot be tokenized or stored",
            )
    return texts


def _fill(template: str, values: Mapping[str, str]) -> list[Segment]:
    # re.split with one group gives plain text and placeholder names in turn.
    parts = PLACEHOLDER.split(template)
    return [(part, values[part]) if i % 2 else (None, part) for i, part in enumerate(parts)]


def _fill_prompt(layout: TemplateLayout, system: str, user: str, values: Mapping[str, str]) -> list[Segment]:
    segments: list[Segment] = []
    if layout.before_system is not None:
        segments += [(None, layout.before_system), (None, system), (None, layout.before_user)]
    else:
        merged = f"{system}\n\n" if system else ""
        segments += [(None, layout.before_user), (None, merged)]
    return [*segments, *_fill(user, values), (None, layout.before_assistant)]


def _join(segments: Sequence[Segment], *, assistant: tuple[int, int], prompt_end: int) -> RenderedText:
    spans: dict[str, tuple[int, int]] = {}
    edges = [0]
    for name, text in segments:
        edges.append(edges[-1] + len(text))
        if name is not None:
            spans[name] = (edges[-2], edges[-1])
    spans["prompt"] = (0, edges[prompt_end])
    spans["assistant"] = (edges[assistant[0]], edges[assistant[1]])
    return RenderedText("".join(text for _, text in segments), spans)
