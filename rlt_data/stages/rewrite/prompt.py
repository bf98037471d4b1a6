"""The prompt of a rewriting: a template with the texts of a trace, from a text or TOML file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, model_validator

from rlt_data.bounds import STRICT
from rlt_data.errors import UsageError
from rlt_data.formats import ConversationFormat
from rlt_data.formats.parsing import ParsedTrace, parse_student_completion
from rlt_data.toml import load_document, parse_document, validate_data

PLACEHOLDER = re.compile(r"\{(question|solution|think|completion)\}")
BUILT_IN = ("clean-up",)
"""The prompts in the folder `prompts`, by name."""
MOST_BYTES = 1 << 20
"""The largest prompt file."""


class RewritePrompt(BaseModel):
    """What the model is asked, and how its answer is delimited.

    Only the four placeholders are replaced, once; other braces, and those in the texts, stay as they are.
    """

    model_config = STRICT

    user: str = Field(description="The user's message, with {think} or {completion}.")
    system: str = Field("", description="System prompt; empty for none.")
    open: str = Field("", description="Text before the rewritten explanation in the answer; empty for none.")
    close: str = Field("", description="Text after it.")

    @model_validator(mode="after")
    def _check(self) -> RewritePrompt:
        names = PLACEHOLDER.findall(self.user)
        if not {"think", "completion"} & set(names):
            raise ValueError("user must contain {think} or {completion}: the explanation to rewrite")
        if PLACEHOLDER.search(self.system):
            raise ValueError("system must contain no placeholder: the texts belong into user")
        if bool(self.open) != bool(self.close):
            raise ValueError("open and close are given together")
        return self

    def list_identity(self) -> dict[str, str]:
        """Return what identifies the prompt: its texts, not the file."""
        return self.model_dump()

    def needs(self, name: str) -> bool:
        """Return whether the message contains the placeholder of a text."""
        return name in PLACEHOLDER.findall(self.user)

    def write_message(self, texts: Mapping[str, str | None]) -> str:
        """Fill the user's message with the texts of one trace."""
        parts = PLACEHOLDER.split(self.user)
        return "".join((texts[part] or "") if index % 2 else part for index, part in enumerate(parts))

    def apply_to(self, format: ConversationFormat) -> ConversationFormat:
        """Return the format of the conversation with the model: this system prompt, and the plain message."""
        student = format.student.model_copy(update={"system": self.system, "user": "{question}"})
        return format.model_copy(update={"student": student})

    def read_answer(self, format: ConversationFormat, text: str) -> ParsedTrace:
        """Read the rewritten explanation from a model's answer, without the model's own thinking.

        The state is the first that applies: `missing_close` (its thinking, or `open`, never closes),
        `missing_open` (there is no `open`), `empty` (blank), `repeated_tags`, `closed`.
        """
        own = parse_student_completion(format, text)
        if own.state == "missing_close":
            return ParsedTrace(None, None, "missing_close")
        # Without a tag of thinking, all of the text is the answer.
        answer = text if own.think is None else own.solution or ""
        if self.open:
            _, opened, rest = answer.partition(self.open)
            if not opened:
                return ParsedTrace(None, None, "missing_open")
            answer, closed, after = rest.partition(self.close)
            if not closed:
                return ParsedTrace(answer.strip() or None, None, "missing_close")
            if self.open in answer + after or self.close in after:
                return ParsedTrace(answer.strip() or None, None, "repeated_tags")
        return ParsedTrace(answer.strip(), None, "closed" if answer.strip() else "empty")


def load_prompt(name: str) -> RewritePrompt:
    """Load a prompt from a file; one that ends in .toml is a TOML document, any other the user's message.

    A name without a suffix that is no file is that of a built-in prompt. Raises `UsageError` where it cannot
    be read, or has no placeholder of an explanation.
    """
    path = Path(name).expanduser()
    if name in BUILT_IN and not path.is_file():
        text = resources.files(__package__).joinpath("prompts", f"{name}.toml").read_text(encoding="utf-8")
        document = parse_document(text, f"{name}.toml")
        return validate_data(RewritePrompt, document.data, [document])
    if path.suffix.lower() == ".toml":
        document = load_document(path)
        return validate_data(RewritePrompt, document.data, [document])
    return _validate({"user": _read_text(path)}, path)


def _read_text(path: Path) -> str:
    try:
        if not path.is_file():
            what = f"there is no such file, and no built-in prompt of that name ({', '.join(BUILT_IN)})"
            raise UsageError(what, where=str(path), remedy="--prompt FILE")
        if path.stat().st_size > MOST_BYTES:
            raise UsageError(f"the prompt is larger than {MOST_BYTES:,} bytes", where=str(path))
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"the prompt is not UTF-8: {error.reason}", where=str(path)) from error
    except OSError as error:
        raise UsageError(f"the prompt cannot be read: {error.strerror}", where=str(path)) from error


def _validate(data: dict[str, Any], path: Path) -> RewritePrompt:
    try:
        return RewritePrompt.model_validate(data)
    except ValueError as error:
        raise UsageError(
            "the prompt does not contain {think} or {completion}, the explanation to rewrite",
            where=str(path),
            remedy="add {think} where the explanation belongs",
        ) from error
