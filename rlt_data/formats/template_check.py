"""What a chat template drops, moves or adds, detected before any text is scored or trained on.

Rendered texts keep all parts of a conversation, since contents are inserted after the template is applied.
But a server, or a trainer that renders `messages`, applies the template as it is: runs note where the two
differ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal, assert_never

from rlt_data.formats.definition import ConversationFormat
from rlt_data.formats.layout import (
    SENTINELS,
    TEMPLATE_DATE,
    ChatTokenizer,
    TemplateLayout,
    apply_template,
    find_layout,
    name_tokenizer,
)
from rlt_data.formats.rendering import build_student_messages, render_student_prompt, render_student_text

Role = Literal["teacher", "student"]

_PARTS = {
    "question": "Rlt5entinelQuestion",
    "thinking": "Rlt5entinelThinking",
    "solution": "Rlt5entinelGiven",
}
_SHOWN = 80


def check_template(
    format: ConversationFormat, tokenizer: ChatTokenizer, role: Role, *, name: str = ""
) -> list[str]:
    """Check the chat template of a teacher's or a student's tokenizer; return sentences for the run's notes.

    Each sentence states what the template drops, moves or adds, and what the rendered texts contain instead;
    `name` is the model's name in them. Raises `ModelError`, as rendering does, where texts of this format
    cannot be rendered through the template.
    """
    match role:
        case "student":
            # Rendering refuses what the layout alone does not show, such as thinking that opens twice.
            render_student_prompt(format, tokenizer, "")
            layout = find_layout(tokenizer, with_system=bool(format.student.system))
            own = [_check_white_space(tokenizer), _check_contents(tokenizer, layout, format)]
        case "teacher":
            layout = find_layout(tokenizer, with_system=bool(format.teacher.system))
            own = []
        case _:
            assert_never(role)
    found = [
        _check_system(layout, role),
        _check_default_system(tokenizer, layout),
        _check_date(tokenizer),
        _check_generation_prompt(tokenizer, layout, format, role),
        *own,
    ]
    of = name or name_tokenizer(tokenizer)
    return [f"the chat template of {of} {sentence}" for sentence in found if sentence]


def keeps_thinking(
    format: ConversationFormat, tokenizer: ChatTokenizer, question: str, think: str, solution: str
) -> bool:
    """Whether the chat template alone, applied to the messages of a conversation, writes the whole thinking.

    Templates look for tags in contents: Qwen3's drops whatever comes before the last `</think>`. Call it
    with short texts only: a rendering is tried under limits first, and kept (see `template_guard`).
    """
    rendered, _ = _apply_to_messages(format, tokenizer, question, think, solution)
    return rendered is not None and think.strip() in rendered


def _check_system(layout: TemplateLayout, role: Role) -> str:
    if layout.system_problem:
        return (
            f"{layout.system_problem}; the {role}'s system prompt is written in the user's turn, before the "
            "question"
        )
    if layout.before_system is not None and not layout.before_user.strip():
        return "moves the system prompt into the user's turn, before the question"
    return ""


def _check_default_system(tokenizer: ChatTokenizer, layout: TemplateLayout) -> str:
    """Compare what comes before the first user message with what comes before a second one."""
    if layout.before_system is not None:
        return ""
    user, assistant = SENTINELS["user"], SENTINELS["assistant"]
    again = f"{user}Again"
    rendered, _ = apply_template(tokenizer, [("user", user), ("assistant", assistant), ("user", again)])
    if rendered is None or assistant not in rendered or again not in rendered:
        return ""
    between = rendered[rendered.index(assistant) + len(assistant) : rendered.index(again)]
    added = _drop_common_end(tokenizer, layout.before_user, between).strip().removeprefix("system").strip()
    if not re.search(r"\w", added):
        return ""
    return (
        f"adds a system prompt of its own, {_shorten(added)!r}, which is part of every prompt; a "
        "system prompt in the format replaces it"
    )


def _check_date(tokenizer: ChatTokenizer) -> str:
    message = [("user", SENTINELS["user"])]
    fixed, _ = apply_template(tokenizer, message)
    later, _ = apply_template(tokenizer, message, date=TEMPLATE_DATE + timedelta(days=401))
    if fixed == later:
        return ""
    return f"writes the current date; rendered texts always have {TEMPLATE_DATE:%Y-%m-%d}"


def _check_white_space(tokenizer: ChatTokenizer) -> str:
    user = SENTINELS["user"]
    rendered, _ = apply_template(tokenizer, [("user", f" \n{user}\n ")])
    if rendered is None or f" \n{user}\n " in rendered:
        return ""
    return "trims white space at the edges of messages; rendered texts keep it"


def _check_generation_prompt(
    tokenizer: ChatTokenizer, layout: TemplateLayout, format: ConversationFormat, role: Role
) -> str:
    """Compare where generation begins in the template with where our texts let the model begin."""
    written = _find_generation_prompt(tokenizer, layout)
    if written is None:
        return ""
    if written == layout.before_assistant:
        return ""
    more = written.removeprefix(layout.before_assistant)
    if more == written:
        return (
            f"begins an answer with {_shorten(written)!r} where one is generated, and "
            f"{_shorten(layout.before_assistant)!r} in a finished conversation, as rendered texts do"
        )
    match role:
        case "teacher":
            return (
                f"begins a generated answer with {_shorten(more)!r}; the teacher's turn begins with the "
                "format's prefill instead"
            )
        case "student" if format.student.assistant.startswith(more):
            # The texts agree: the prompt merely ends a few characters later.
            return ""
        case "student":
            return (
                f"begins a generated answer with {_shorten(more)!r}, which the format does not write: a "
                "student trained on these texts sees it for the first time when it is served. Use a format "
                "that begins so (r1 begins with '<think>\\n'), or a chat template without it"
            )
        case _:
            assert_never(role)


def find_opened_thinking(format: ConversationFormat, tokenizer: ChatTokenizer) -> str:
    """Return what the template writes where an answer is generated, if the student's turn begins with it.

    Such a template opens the thinking for the model (DeepSeek-R1's does); most write nothing there.
    """
    layout = find_layout(tokenizer, with_system=bool(format.student.system))
    written = _find_generation_prompt(tokenizer, layout)
    if written is None or not written.startswith(layout.before_assistant):
        return ""
    more = written.removeprefix(layout.before_assistant)
    return more if format.student.assistant.startswith(more) else ""


def _find_generation_prompt(tokenizer: ChatTokenizer, layout: TemplateLayout) -> str | None:
    """Return what the template writes after the user's message where an answer is generated."""
    with_system = layout.before_system is not None
    messages = [(name, SENTINELS[name]) for name in ("system", "user") if with_system or name == "user"]
    rendered, _ = apply_template(tokenizer, messages, add_generation_prompt=True)
    if rendered is None or SENTINELS["user"] not in rendered:
        return None
    return rendered[rendered.index(SENTINELS["user"]) + len(SENTINELS["user"]) :]


def _check_contents(tokenizer: ChatTokenizer, layout: TemplateLayout, format: ConversationFormat) -> str:
    """Render a whole conversation by the template alone, and compare it with the text that we render."""
    # Explanations usually end with a line end.
    parts = {**_PARTS, "thinking": f"{_PARTS['thinking']}\n"}
    ours = render_student_text(
        format, tokenizer, parts["question"], parts["thinking"], parts["solution"]
    ).text
    rendered, problem = _apply_to_messages(
        format, tokenizer, parts["question"], parts["thinking"], parts["solution"]
    )
    if rendered is None:
        what = f"fails on a whole conversation ({problem})"
    elif rendered.rstrip() == ours:
        return ""
    else:
        what = _name_difference(rendered.rstrip(), ours, layout)
    return (
        f"{what}. Rendered texts have every part as the format writes it; a trainer that renders `messages` "
        "through this template would not, so train on `text`"
    )


def _apply_to_messages(
    format: ConversationFormat, tokenizer: ChatTokenizer, question: str, think: str, solution: str
) -> tuple[str | None, str]:
    """Render a student's conversation by the template alone, as a trainer or a server does."""
    layout = find_layout(tokenizer, with_system=bool(format.student.system))
    messages = [
        (message["role"], message["content"])
        for message in build_student_messages(format, question, think, solution)
    ]
    if layout.system_problem:
        system, user, assistant = (content for _, content in messages)
        messages = [("user", f"{system}\n\n{user}"), ("assistant", assistant)]
    return apply_template(tokenizer, messages)


def _name_difference(theirs: str, ours: str, layout: TemplateLayout) -> str:
    dropped = [part for part, sentinel in _PARTS.items() if sentinel not in theirs]
    if dropped:
        return f"drops the {' and the '.join(dropped)} of a conversation"
    repeated = [part for part, sentinel in _PARTS.items() if theirs.count(sentinel) > 1]
    if repeated:
        return f"writes the {' and the '.join(repeated)} of a conversation more than once"
    found = sorted(_PARTS, key=lambda part: theirs.index(_PARTS[part]))
    if found != list(_PARTS):
        return f"moves parts of a conversation: it writes {', '.join(found)} in this order"
    header, tags = layout.before_assistant, layout.thinking_tags
    if tags and theirs == ours.replace(header, header + tags, 1):
        return f"writes {tags!r} before an answer, besides the thinking tags of the format"
    start = next((i for i, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), len(ours))
    before = max(0, start - 20)
    return (
        f"changes a conversation: it writes {theirs[before : start + 20]!r} where the format has "
        f"{ours[before : start + 20]!r}"
    )


def _drop_common_end(tokenizer: Any, first: str, second: str) -> str:
    """Drop from `first` the end that both texts share, and all special tokens."""
    left, right = (_cut_at_special_tokens(tokenizer, text) for text in (first, second))
    while left and right and left[-1] == right[-1]:
        left.pop()
        right.pop()
    special = _list_special_tokens(tokenizer)
    if left and right and left[-1] not in special and right[-1] not in special:
        a, b = left.pop(), right.pop()
        shared = next((i for i, (x, y) in enumerate(zip(a[::-1], b[::-1], strict=False)) if x != y), None)
        left.append(a[: len(a) - (min(len(a), len(b)) if shared is None else shared)])
    return "".join(piece for piece in left if piece not in special)


def _cut_at_special_tokens(tokenizer: Any, text: str) -> list[str]:
    special = sorted(_list_special_tokens(tokenizer), key=len, reverse=True)
    if not special:
        return [text]
    return [piece for piece in re.split(f"({'|'.join(map(re.escape, special))})", text) if piece]


def _list_special_tokens(tokenizer: Any) -> Sequence[str]:
    added = [token.content for token in getattr(tokenizer, "added_tokens_decoder", {}).values()]
    return [str(token) for token in {*added, *getattr(tokenizer, "all_special_tokens", ())} if token]


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]} ..."
