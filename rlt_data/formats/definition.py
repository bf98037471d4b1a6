"""A conversation format: the prompts and tags of teacher and student, as data.

Built-in formats are the TOML files beside this module; each is named as its file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from rlt_data.errors import UsageError
from rlt_data.settings import Settings, load_settings
from rlt_data.suggestions import suggest_name
from rlt_data.toml import load_document, parse_document, validate_data

PLACEHOLDER = re.compile(r"\{(question|solution|think)\}")
BUILT_IN = tuple(
    sorted(
        file.name.removesuffix(".toml")
        for file in resources.files(__package__).iterdir()
        if file.name.endswith(".toml")
    )
)


class TeacherFormat(BaseModel):
    """The teacher's prompt and tags. The teacher continues `prefill` until it writes `close`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str = ""
    """System prompt; empty for none."""
    user: str = "{question}"
    """The user's turn, with `{question}`, and with `{solution}` unless `prefill` has it."""
    prefill: str
    """How the assistant's turn begins, up to and including the opened explanation."""
    open: str
    """The tag that opens an explanation."""
    close: str
    """The tag that closes an explanation; generation stops there."""

    @model_validator(mode="after")
    def _check(self) -> TeacherFormat:
        if PLACEHOLDER.findall(self.user + self.prefill).count("think"):
            raise ValueError("teacher: {think} is what the teacher writes, so its prompt cannot contain it")
        for name in ("question", "solution"):
            found = PLACEHOLDER.findall(self.user + self.prefill).count(name)
            if found != 1:
                raise ValueError(
                    f"teacher: {{{name}}} must occur exactly once in user and prefill together, found {found}"
                )
        if not self.open or not self.close:
            raise ValueError("teacher.open and teacher.close must not be empty")
        if self.open not in self.prefill:
            raise ValueError(f"teacher.prefill must open the explanation with teacher.open, {self.open!r}")
        return self


class StudentFormat(BaseModel):
    """The student's prompt, and the tags around its thinking and solution."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str = ""
    """System prompt; empty for none."""
    user: str = "{question}"
    """The user's turn, with `{question}`."""
    think_open: str
    """The tag before the thinking."""
    think_padding: str = ""
    """Written between `think_open` and the thinking."""
    think_close: str
    """The tag after the thinking."""
    separator: str = "\n\n"
    """Written between `think_close` and `solution_open`."""
    solution_open: str = ""
    """The tag before the solution; may be empty."""
    solution_close: str = ""
    """The tag after the solution; may be empty."""

    @model_validator(mode="after")
    def _check(self) -> StudentFormat:
        found = PLACEHOLDER.findall(self.user)
        if found != ["question"]:
            raise ValueError(
                f"student.user must contain {{question}} once and no other placeholder, found {found}: the "
                "student sees neither the solution nor the explanation in its prompt"
            )
        if not self.think_open or not self.think_close:
            raise ValueError("student.think_open and student.think_close must not be empty")
        return self

    @property
    def assistant(self) -> str:
        """The assistant's turn, with `{think}` and `{solution}`."""
        return (
            f"{self.think_open}{self.think_padding}{{think}}{self.think_close}{self.separator}"
            f"{self.solution_open}{{solution}}{self.solution_close}"
        )


class ConversationFormat(BaseModel):
    """One conversation format, built in or a user's own.

    Only the placeholders above are replaced, not by `str.format`, so other braces stay as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    teacher: TeacherFormat
    student: StudentFormat

    def identity_text(self) -> dict[str, Any]:
        """Return everything that determines a rendered text, for fingerprints: all but the name."""
        return self.model_dump(exclude={"name"})


def load_format(name_or_path: str, settings: Settings | None = None) -> ConversationFormat:
    """Load a format by name (a user's own before a built-in one) or from a TOML file by its path.

    `settings` default to the nearest `rlt-data.toml`. A user's format with `base = "stratos"` needs only the
    keys that differ. Raises `UsageError` for an unknown name, for an unknown key (with file, line and the
    nearest valid key), and for missing or misplaced placeholders.
    """
    settings = load_settings() if settings is None else settings
    if name_or_path in settings.formats:
        return _build_from_settings(name_or_path, settings)
    if name_or_path in BUILT_IN:
        return load_built_in(name_or_path)
    path = Path(name_or_path).expanduser()
    if path.suffix == ".toml" or path.is_file():
        document = load_document(path)
        table = _inherit({"name": path.stem, **document.data}, settings, document.name)
        return validate_data(ConversationFormat, table, [document])
    raise UsageError(
        f"there is no conversation format {name_or_path!r}",
        where=f"existing formats: {', '.join(list_formats(settings))}",
        remedy=f"{suggest_name(name_or_path, list_formats(settings))}; or name a TOML file, or add "
        f"[formats.{name_or_path}] to rlt-data.toml",
    )


def list_formats(settings: Settings | None = None) -> list[str]:
    """List the names of the built-in and the user's formats."""
    settings = load_settings() if settings is None else settings
    return sorted({*BUILT_IN, *settings.formats})


@cache
def load_built_in(name: str) -> ConversationFormat:
    """Load a built-in format, regardless of the user's settings."""
    text = resources.files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    document = parse_document(text, f"{name}.toml")
    return validate_data(ConversationFormat, document.data, [document])


class _FormatTables(BaseModel):
    formats: Mapping[str, ConversationFormat]


def _build_from_settings(name: str, settings: Settings) -> ConversationFormat:
    where = f"[formats.{name}]"
    table = _inherit({"name": name, **settings.formats[name]}, settings, where)
    documents = [settings.document] if settings.document is not None else []
    return validate_data(_FormatTables, {"formats": {name: table}}, documents).formats[name]


def _inherit(table: dict[str, Any], settings: Settings, where: str) -> dict[str, Any]:
    """Add the keys of the base format that `table` lacks."""
    base = table.pop("base", None)
    if base is None:
        return table
    if base not in BUILT_IN:
        raise UsageError(
            f"a format cannot be based on {base!r}",
            where=where,
            remedy=f"base is one of the built-in formats: {', '.join(BUILT_IN)}",
        )
    inherited = load_built_in(base).model_dump()
    for part in ("teacher", "student"):
        own = table.get(part, {})
        table[part] = {**inherited[part], **own} if isinstance(own, Mapping) else own
    return table
