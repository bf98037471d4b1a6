"""A conversation format: what the teacher and the student read and write, as data."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from rlt_data.errors import UsageError

PLACEHOLDER = re.compile(r"\{(question|solution|think)\}")
BUILT_IN = ("stratos", "r1")


class FormatSettings(Protocol):
    """Settings that may define formats: `[formats.NAME]` tables of rlt-data.toml."""

    @property
    def formats(self) -> Mapping[str, Mapping[str, Any]]:
        """Format tables by name, as read from TOML."""


class TeacherFormat(BaseModel):
    """The teacher's side. The teacher goes on from `prefill` until it writes `close`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    system: str = ""
    """System prompt; empty for none."""
    user: str = "{question}"
    """The user's turn, with `{question}` and, if not in `prefill`, `{solution}`."""
    prefill: str
    """How the assistant's turn begins, up to and including the opened explanation."""
    open: str
    """The tag that opens an explanation."""
    close: str
    """The tag that closes an explanation; generation stops there."""

    @model_validator(mode="after")
    def _check(self) -> TeacherFormat:
        if PLACEHOLDER.findall(self.user + self.prefill).count("think"):
            raise ValueError("teacher: {think} is what the teacher writes; it cannot stand in its prompt")
        for name in ("question", "solution"):
            found = PLACEHOLDER.findall(self.user + self.prefill).count(name)
            if found != 1:
                raise ValueError(
                    f"teacher: {{{name}}} must stand exactly once in user and prefill together, found {found}"
                )
        if not self.close:
            raise ValueError("teacher.close must not be empty: an explanation would never close")
        return self


class StudentFormat(BaseModel):
    """The student's side: what it is asked, and how its thinking and solution are marked."""

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
                f"student.user must hold {{question}} once and nothing else, found {found}: the student "
                "sees neither the solution nor the explanation in its prompt"
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
    """One conversation format. Built in are `stratos` and `r1`; users add their own in TOML.

    Placeholders are filled by position, not by `str.format`, so braces elsewhere stay as they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    teacher: TeacherFormat
    student: StudentFormat

    def identity_text(self) -> dict[str, Any]:
        """Everything that decides a rendered text, for fingerprints: all but the name."""
        return self.model_dump(exclude={"name"})


def load_format(name_or_path: str, settings: FormatSettings | None = None) -> ConversationFormat:
    """Load a format by name (the user's own first, then built in) or from a TOML file.

    A user's format may say `base = "stratos"` and then only what differs. Raises `UsageError` for an
    unknown name, a key that no format has, or placeholders that make no sense.
    """
    if settings is not None and name_or_path in settings.formats:
        table = settings.formats[name_or_path]
        return _build_format(name_or_path, table, f"[formats.{name_or_path}]", settings)
    if name_or_path in BUILT_IN:
        return _load_built_in(name_or_path)
    path = Path(name_or_path).expanduser()
    if path.suffix == ".toml" or path.is_file():
        return _build_format(path.stem, _read_toml(path), str(path), settings)
    known = sorted({*BUILT_IN, *(settings.formats if settings is not None else ())})
    near = difflib.get_close_matches(name_or_path, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise UsageError(
        f"there is no conversation format {name_or_path!r}",
        where=f"known formats: {', '.join(known)}",
        remedy=f"{hint}name one of these, a TOML file, or add [formats.{name_or_path}] to rlt-data.toml",
    )


def list_formats(settings: FormatSettings | None = None) -> list[str]:
    """Names of the built-in and the user's formats."""
    return sorted({*BUILT_IN, *(settings.formats if settings is not None else ())})


@cache
def _load_built_in(name: str) -> ConversationFormat:
    text = resources.files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return _build_format(name, tomllib.loads(text), f"{name}.toml", None)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError("the format file does not exist", where=str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the format file is no valid TOML: {error}", where=str(path)) from None


def _build_format(
    name: str, table: Mapping[str, Any], where: str, settings: FormatSettings | None
) -> ConversationFormat:
    values: dict[str, Any] = {"name": name, **table}
    base = values.pop("base", None)
    if base is not None:
        if base == name and name not in BUILT_IN:
            raise UsageError("a format cannot be its own base", where=where)
        inherited = load_format(str(base), settings if base != name else None).model_dump()
        for part in ("teacher", "student"):
            values[part] = {**inherited[part], **values.get(part, {})}
    try:
        return ConversationFormat.model_validate(values)
    except ValidationError as error:
        raise UsageError(_explain(error), where=where, remedy="see rlt_data/formats/stratos.toml") from None


def _explain(error: ValidationError) -> str:
    models: dict[str, type[BaseModel]] = {"teacher": TeacherFormat, "student": StudentFormat}
    sentences = []
    for problem in error.errors():
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            *parents, key = (str(part) for part in problem["loc"])
            model = models.get(parents[0], ConversationFormat) if parents else ConversationFormat
            near = difflib.get_close_matches(key, [*model.model_fields, "base"], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            sentences.append(f"unknown key {place!r}{hint}")
        elif problem["type"] == "missing":
            sentences.append(f"the key {place!r} is missing")
        else:
            sentences.append(problem["msg"].removeprefix("Value error, "))
    return "the conversation format is not valid: " + "; ".join(sentences)
