"""Conversations rendered through a model's own chat template, with character spans.

The template is rendered once with opaque sentinels as message contents; the texts are then put in their
place. So whatever stands in a question or an explanation, tags of the format or of the template
included, cannot change the layout, a template that rewrites contents (strips thinking, trims) has
nothing to rewrite, and every span is known by construction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from rlt_data.errors import InputError, ModelError
from rlt_data.formats.definition import PLACEHOLDER, ConversationFormat

# Letters and digits only: nothing that a template would trim, split on or escape.
_SENTINELS = {role: f"Rlt5entinel{role.capitalize()}9b1f4c07" for role in ("system", "user", "assistant")}

# Some templates (Qwen3, DeepSeek-V3.1) put an empty thinking block before an answer without one. Our
# formats write the thinking themselves, and at generation time the block is not there.
_EMPTY_THINKING = re.compile(r"(?:<think>\s*)?</think>\s*\Z")

# Some templates (Llama 3.1, gpt-oss) print the day of rendering; a fixed one gives the same text every day.
_TEMPLATE_DATE = datetime(2024, 7, 26)

_SURROGATE = re.compile(r"[\ud800-\udfff]")

Segment = tuple[str | None, str]


class ChatTokenizer(Protocol):
    """What rendering needs of a transformers tokenizer."""

    chat_template: Any

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any:
        """Render messages through the chat template."""


@dataclass(frozen=True)
class RenderedText:
    """A text and the half-open character spans of its parts.

    Spans: `question`, `solution`, `think` where present; `prompt` from 0 to where the model begins to
    write; `assistant` the content of the assistant's turn.
    """

    text: str
    spans: Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class _Skeleton:
    """A rendered template without its contents: what stands before, between and after them."""

    before_system: str | None
    before_user: str
    before_assistant: str
    end: str


def render_teacher_prompt(
    format: ConversationFormat, tokenizer: ChatTokenizer, question: str, solution: str
) -> RenderedText:
    """Render what the teacher reads, up to and including the opened explanation.

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
    skeleton = _render_skeleton(tokenizer, with_system=bool(teacher.system))
    segments = _fill_prompt(skeleton, teacher.system, teacher.user, values)
    begin = len(segments)
    segments += _fill(teacher.prefill, values)
    written = len(segments)
    segments += [("think", think), (None, closing)]
    return _join(segments, assistant=(begin, len(segments)), prompt_end=written)


def render_student_prompt(
    format: ConversationFormat, tokenizer: ChatTokenizer, question: str
) -> RenderedText:
    """Render what the student reads, up to where its own turn begins. Raises as `render_teacher_prompt`."""
    student = format.student
    values = _check_texts(question=question)
    skeleton = _render_skeleton(tokenizer, with_system=bool(student.system))
    segments = _fill_prompt(skeleton, student.system, student.user, values)
    return _join(segments, assistant=(len(segments), len(segments)), prompt_end=len(segments))


def render_student_text(
    format: ConversationFormat, tokenizer: ChatTokenizer, question: str, think: str, solution: str
) -> RenderedText:
    """Render the student's whole conversation: question, explanation and the true solution.

    Label substitution: `solution` is the true one, whatever the teacher wrote. The text ends with what
    the template writes at the end of the assistant's turn (white space after the end token left out).
    Raises as `render_teacher_prompt`.
    """
    student = format.student
    values = _check_texts(question=question, think=think, solution=solution)
    skeleton = _render_skeleton(tokenizer, with_system=bool(student.system))
    segments = _fill_prompt(skeleton, student.system, student.user, values)
    begin = len(segments)
    segments += _fill(student.assistant, values)
    end = len(segments)
    segments.append((None, skeleton.end))
    return _join(segments, assistant=(begin, end), prompt_end=begin)


def build_student_messages(
    format: ConversationFormat, question: str, think: str, solution: str
) -> list[dict[str, str]]:
    """Build the student's conversation as role and content, the true solution in its place."""
    student = format.student
    values = _check_texts(question=question, think=think, solution=solution)
    messages = [{"role": "system", "content": student.system}] if student.system else []
    for role, template in (("user", student.user), ("assistant", student.assistant)):
        messages.append({"role": role, "content": "".join(text for _, text in _fill(template, values))})
    return messages


def build_teacher_messages(format: ConversationFormat, question: str, solution: str) -> list[dict[str, str]]:
    """Build the teacher's conversation, the last message being the beginning of the assistant's turn."""
    teacher = format.teacher
    values = _check_texts(question=question, solution=solution)
    messages = [{"role": "system", "content": teacher.system}] if teacher.system else []
    for role, template in (("user", teacher.user), ("assistant", teacher.prefill)):
        messages.append({"role": role, "content": "".join(text for _, text in _fill(template, values))})
    return messages


def _check_texts(**texts: str) -> dict[str, str]:
    for name, text in texts.items():
        found = _SURROGATE.search(text)
        if found:
            raise InputError(
                f"the {name} is not valid Unicode: it holds the lone surrogate U+{ord(found[0]):04X}",
                where=f"character {found.start()} of the {name}",
                remedy="repair the encoding of the source; such text cannot be tokenized or stored",
            )
    return texts


def _fill(template: str, values: Mapping[str, str]) -> list[Segment]:
    # re.split with one group gives plain text and placeholder names in turn.
    parts = PLACEHOLDER.split(template)
    return [(part, values[part]) if i % 2 else (None, part) for i, part in enumerate(parts)]


def _fill_prompt(skeleton: _Skeleton, system: str, user: str, values: Mapping[str, str]) -> list[Segment]:
    segments: list[Segment] = []
    if skeleton.before_system is not None:
        segments += [(None, skeleton.before_system), (None, system), (None, skeleton.before_user)]
    else:
        merged = f"{system}\n\n" if system else ""
        segments += [(None, skeleton.before_user), (None, merged)]
    return [*segments, *_fill(user, values), (None, skeleton.before_assistant)]


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


_skeletons: WeakKeyDictionary[Any, dict[tuple[str, bool], _Skeleton]] = WeakKeyDictionary()


def _render_skeleton(tokenizer: ChatTokenizer, *, with_system: bool) -> _Skeleton:
    if not tokenizer.chat_template:
        raise ModelError(
            "the tokenizer has no chat template, so a conversation cannot be rendered for this model",
            where=str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__),
            remedy="use the instruction-tuned model's tokenizer, or save a chat_template.jinja beside it",
        )
    known = _skeletons.setdefault(tokenizer, {})
    key = (str(tokenizer.chat_template), with_system)
    if key not in known:
        known[key] = _find_skeleton(tokenizer, with_system=with_system)
    return known[key]


def _find_skeleton(tokenizer: ChatTokenizer, *, with_system: bool) -> _Skeleton:
    if with_system:
        rendered, problem = _apply_template(tokenizer, ("system", "user", "assistant"))
        if rendered is not None and rendered.count(_SENTINELS["system"]) == 1:
            return _split(tokenizer, rendered, ("system", "user", "assistant"))
    # A template without a system role refuses it or leaves it out: its text goes before the question.
    rendered, problem = _apply_template(tokenizer, ("user", "assistant"))
    if rendered is None:
        raise _explain_template(tokenizer, f"the chat template fails: {problem}")
    return _split(tokenizer, rendered, ("user", "assistant"))


def _apply_template(tokenizer: ChatTokenizer, roles: Sequence[str]) -> tuple[str | None, str]:
    from jinja2.exceptions import TemplateError

    messages = [{"role": role, "content": _SENTINELS[role]} for role in roles]
    try:
        rendered = tokenizer.apply_chat_template(
            messages, tokenize=False, strftime_now=_TEMPLATE_DATE.strftime
        )
    except (TemplateError, TypeError, ValueError, KeyError) as error:
        return None, str(error)
    return str(rendered), ""


def _split(tokenizer: ChatTokenizer, rendered: str, roles: Sequence[str]) -> _Skeleton:
    gaps = []
    rest = rendered
    for role in roles:
        sentinel = _SENTINELS[role]
        if rendered.count(sentinel) != 1 or sentinel not in rest:
            raise _explain_template(
                tokenizer,
                f"the chat template writes the {role} message {rendered.count(sentinel)} times or out of "
                "order; it must stand exactly once, after the one before it",
            )
        gap, rest = rest.split(sentinel)
        gaps.append(gap)
    gaps[-1] = _EMPTY_THINKING.sub("", gaps[-1])
    before_system = gaps[0] if roles[0] == "system" else None
    return _Skeleton(before_system, gaps[-2], gaps[-1], rest.rstrip())


def _explain_template(tokenizer: ChatTokenizer, what: str) -> ModelError:
    return ModelError(
        what,
        where=str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__),
        remedy="give the model a chat template that writes system, user and assistant messages in turn",
    )
