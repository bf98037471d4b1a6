"""The layout of a chat template: what it writes before, between and after the messages.

The template is rendered once with opaque sentinels as message contents, and cut at them. What cannot be
cut so (a message that is missing, repeated or out of order) is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from rlt_data.errors import ModelError
from rlt_data.formats.template_guard import GUARD

SENTINELS = {role: f"Rlt5entinel{role.capitalize()}9b1f4c07" for role in ("system", "user", "assistant")}
"""Contents that no template rewrites: letters and digits, nothing to trim, split on or escape."""

# Some templates put thinking tags before an answer that has none: an empty block (Qwen3), the closing
# tag (DeepSeek-V3.1) or the opening one. Our formats write the thinking with its tags themselves.
_THINKING_TAGS = re.compile(r"(?:<think>\s*)?(?:</think>\s*)?\Z")

# Some templates (Llama 3.1, gpt-oss) print the current date; a fixed one gives the same text every day.
TEMPLATE_DATE = datetime(2024, 7, 26)


class ChatTokenizer(Protocol):
    """The part of a transformers tokenizer that rendering uses."""

    chat_template: Any

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any:
        """Render messages through the chat template."""


@dataclass(frozen=True)
class TemplateLayout:
    """A rendered template without its contents.

    `before_system` is None where the system prompt is not a message of its own; `system_problem` then states
    what the template does with one (empty where none was rendered). `thinking_tags` are those that the
    template writes before the assistant's content, which `before_assistant` does not contain.
    """

    before_system: str | None
    before_user: str
    before_assistant: str
    end: str
    thinking_tags: str = ""
    system_problem: str = ""


_layouts: WeakKeyDictionary[Any, dict[tuple[str, bool], TemplateLayout]] = WeakKeyDictionary()


def find_layout(tokenizer: ChatTokenizer, *, with_system: bool) -> TemplateLayout:
    """Find the layout of a tokenizer's chat template, for a conversation with or without a system prompt.

    A template that refuses, drops or repeats a system message is rendered without one. Raises `ModelError`
    where there is no template, where it fails, and where it does not write each message once, in turn.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            "the tokenizer has no chat template, so a conversation cannot be rendered for this model",
            where=name_tokenizer(tokenizer),
            remedy="use the instruction-tuned model's tokenizer, or save a chat_template.jinja beside it",
        )
    cached = _layouts.setdefault(tokenizer, {})
    key = (str(tokenizer.chat_template), with_system)
    if key not in cached:
        cached[key] = _build_layout(tokenizer, with_system=with_system)
    return cached[key]


def apply_template(
    tokenizer: ChatTokenizer,
    messages: Sequence[tuple[str, str]],
    *,
    date: datetime = TEMPLATE_DATE,
    add_generation_prompt: bool = False,
) -> tuple[str | None, str]:
    """Render (role, content) pairs on a date; the text, or None and what the template fails with.

    Raises `ModelError` for a template that takes too much time or memory (see `template_guard`).
    """
    conversation = [{"role": role, "content": content} for role, content in messages]
    try:
        template = _find_template(tokenizer)
    except ValueError as error:
        return None, str(error)
    special = getattr(tokenizer, "special_tokens_map", {})
    variables = {name: _simplify(value) for name, value in special.items()}
    variables["add_generation_prompt"] = add_generation_prompt
    problem = GUARD.find_problem(template, conversation, variables, date)
    if problem is not None:
        raise explain_template(tokenizer, f"the chat template {problem}")
    try:
        rendered = tokenizer.apply_chat_template(
            conversation,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            strftime_now=date.strftime,
        )
    except Exception as error:  # a template can raise anything
        return None, str(error)
    return str(rendered), ""


def _find_template(tokenizer: Any) -> str:
    """Return the template that a tokenizer uses; `ValueError` where it has several and no default."""
    choose = getattr(tokenizer, "get_chat_template", None)
    return str(choose() if choose is not None else tokenizer.chat_template)


def _simplify(value: Any) -> Any:
    return [str(item) for item in value] if isinstance(value, list | tuple) else str(value)


def explain_template(tokenizer: ChatTokenizer, what: str) -> ModelError:
    """Make the error for a chat template that cannot be used."""
    return ModelError(
        what,
        where=f"chat template of {name_tokenizer(tokenizer)}",
        remedy="use a tokenizer whose chat template writes system, user and assistant messages once each, in "
        "turn, or save such a template as chat_template.jinja beside the model",
    )


def name_tokenizer(tokenizer: Any) -> str:
    """Name a tokenizer in messages: where it was loaded from."""
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


def _build_layout(tokenizer: ChatTokenizer, *, with_system: bool) -> TemplateLayout:
    system_problem = ""
    if with_system:
        rendered, problem = _apply_to_sentinels(tokenizer, ("system", "user", "assistant"))
        count = rendered.count(SENTINELS["system"]) if rendered is not None else 0
        if rendered is not None and count == 1:
            return _cut(tokenizer, rendered, ("system", "user", "assistant"), "")
        system_problem = (
            f"refuses a system message ({problem})"
            if rendered is None
            else f"writes a system message {count} times"
            if count
            else "drops a system message"
        )
    rendered, problem = _apply_to_sentinels(tokenizer, ("user", "assistant"))
    if rendered is None:
        raise explain_template(tokenizer, f"the chat template fails: {problem}")
    return _cut(tokenizer, rendered, ("user", "assistant"), system_problem)


def _apply_to_sentinels(tokenizer: ChatTokenizer, roles: Sequence[str]) -> tuple[str | None, str]:
    return apply_template(tokenizer, [(role, SENTINELS[role]) for role in roles])


def _cut(
    tokenizer: ChatTokenizer, rendered: str, roles: Sequence[str], system_problem: str
) -> TemplateLayout:
    gaps = []
    rest = rendered
    for i, role in enumerate(roles):
        sentinel = SENTINELS[role]
        count = rendered.count(sentinel)
        if count == 0:
            raise explain_template(tokenizer, f"the chat template drops or rewrites the {role} message")
        if count > 1:
            raise explain_template(tokenizer, f"the chat template writes the {role} message {count} times")
        if sentinel not in rest:
            raise explain_template(
                tokenizer, f"the chat template writes the {role} message before the {roles[i - 1]} message"
            )
        gap, rest = rest.split(sentinel)
        gaps.append(gap)
    tags = _THINKING_TAGS.search(gaps[-1])
    thinking_tags = tags[0] if tags else ""
    return TemplateLayout(
        before_system=gaps[0] if roles[0] == "system" else None,
        before_user=gaps[-2],
        before_assistant=gaps[-1].removesuffix(thinking_tags),
        end=rest.rstrip(),
        thinking_tags=thinking_tags,
        system_problem=system_problem,
    )
