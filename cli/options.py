"""Make command-line options from a pydantic configuration, so that nothing is written twice.

Each field becomes an option of the same name, with its description, type and default; pydantic checks its
bounds. The fields of a nested configuration become options too, in a section of their own.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pydantic
import typer
from pydantic.fields import FieldInfo

from rlt_data.errors import UsageError
from rlt_data.toml import parse_typed_value
from rlt_data.validation import describe_problem, expand_models, expand_union

SIMPLE = (str, int, float, bool, Path)


@dataclass(frozen=True)
class ConfigOption:
    """One field of a configuration as a command-line option."""

    path: tuple[str, ...]
    field: FieldInfo
    flag: str
    panel: str | None
    argument: bool = False

    @property
    def name(self) -> str:
        """The name of the command's parameter that holds its value."""
        return "__".join(self.path)

    def make_parameter(self) -> inspect.Parameter:
        """Make the parameter that declares this option to Typer."""
        kind = choose_option_type(self.field.annotation)
        required = self.field.is_required()
        default = None if required else self.field.get_default(call_default_factory=True)
        plain = _convert_default(default)
        shown = plain is not None and plain is not False and plain != []
        shared: dict[str, Any] = {"help": self.field.description, "show_default": shown}
        metavar = _choose_metavar(self.field.annotation)
        if metavar and not self.argument:
            shared["metavar"] = metavar
        info: Any
        if self.argument:
            info = typer.Argument(**shared)
        else:
            # A switch that is off by default only needs to be turned on.
            both = kind is bool and default is not False
            flag = f"{self.flag}/--no-{self.flag[2:]}" if both else self.flag
            info = typer.Option(flag, rich_help_panel=self.panel, **shared)
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if required else plain,
            annotation=Annotated[kind if required else kind | None, info],
        )


def list_config_options(
    config: type[pydantic.BaseModel],
    *,
    names: Mapping[str, str],
    arguments: Sequence[str] = (),
) -> list[ConfigOption]:
    """List the options of `config`; `names` renames fields, `arguments` are given by position."""
    return list(_walk_fields(config, (), None, names, frozenset(arguments)))


def build_config(
    config: type[pydantic.BaseModel], options: Sequence[ConfigOption], given: Mapping[str, Any]
) -> pydantic.BaseModel:
    """Build a configuration from the values that were `given`. Raises `UsageError` naming the option."""
    data: dict[str, Any] = {}
    for option in options:
        if option.name not in given:
            continue
        value = given[option.name]
        if _is_mapping(option.field.annotation):
            pairs = _parse_pairs(option.flag, value)
            typed = get_args(expand_union(option.field.annotation)[0])[1:] == (Any,)
            value = {key: parse_typed_value(text) if typed else text for key, text in pairs.items()}
        section = data
        for part in option.path[:-1]:
            section = section.setdefault(part, {})
        section[option.path[-1]] = value
    try:
        return config.model_validate(data)
    except pydantic.ValidationError as error:
        flags = {option.path: option.flag for option in options}
        problems = [_explain_problem(item, flags, config) for item in error.errors()]
        raise UsageError(problems[0][0], where=problems[0][1], remedy="see --help") from error


def choose_option_type(annotation: Any) -> Any:
    """Choose the type that Typer parses: the field's own if it is simple, otherwise text for pydantic.

    Numbers are text too: pydantic's message then names the range.
    """
    branches = [branch for branch in expand_union(annotation) if branch is not type(None)]
    if len(branches) != 1:
        return str
    only = branches[0]
    origin = get_origin(only)
    if only in (int, float):
        return str
    if only in SIMPLE or origin is Literal:
        return only
    if origin in (list, tuple, set, frozenset, Sequence):
        # Typer has no lists of choices; pydantic checks them.
        if get_origin(get_args(only)[0]) is Literal:
            return list[str]
        return types.GenericAlias(list, (choose_option_type(get_args(only)[0]),))
    if _is_mapping(only):
        return list[str]
    return str


def _walk_fields(
    config: type[pydantic.BaseModel],
    above: tuple[str, ...],
    panel: str | None,
    names: Mapping[str, str],
    arguments: frozenset[str],
) -> Iterator[ConfigOption]:
    from rlt_data.stages.runtime.contract import StageConfig

    # What is the stage's own comes before what it shares with other stages.
    shared = [base for base in config.__mro__[1:] if issubclass(base, StageConfig)]
    inherited = {name for base in shared for name in base.model_fields}
    for name, field in sorted(config.model_fields.items(), key=lambda item: item[0] in inherited):
        path = (*above, name)
        nested = expand_models(field.annotation)
        if nested:
            yield from _walk_fields(nested[0], path, name.replace("_", " ").capitalize(), names, arguments)
            continue
        dotted = ".".join(path)
        flag = names.get(dotted, "--" + name.replace("_", "-"))
        yield ConfigOption(path, field, flag, panel, argument=dotted in arguments)


def _is_mapping(annotation: Any) -> bool:
    return any(
        isinstance(origin := get_origin(branch), type) and issubclass(origin, Mapping)
        for branch in expand_union(annotation)
    )


def _convert_default(default: Any) -> Any:
    if isinstance(default, Mapping):
        return [f"{key}={value}" for key, value in default.items()]
    if isinstance(default, (tuple, frozenset, set)):
        return list(default)
    return default


def _choose_metavar(annotation: Any) -> str | None:
    branches = [branch for branch in expand_union(annotation) if branch is not type(None)]
    if _is_mapping(annotation):
        return "NAME=VALUE,..."
    if get_origin(branches[0]) in (list, tuple, set, frozenset, Sequence):
        return _choose_metavar(get_args(branches[0])[0])
    if get_origin(branches[0]) is Literal:
        return "|".join(map(str, get_args(branches[0])))
    return {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}.get(branches[0])


def _parse_pairs(flag: str, texts: Sequence[str]) -> dict[str, str]:
    """Parse NAME=VALUE,NAME=VALUE; a piece without `=` continues the value before it, as in a=1,2,b=3."""
    pairs: dict[str, str] = {}
    for text in texts:
        name = ""
        for piece in text.split(","):
            before, sign, value = piece.partition("=")
            if sign and before.strip():
                name = before.strip()
                pairs[name] = value.strip()
            elif name and not sign:
                pairs[name] += f",{piece}"
            else:
                remedy = f"write {flag} NAME=VALUE,NAME=VALUE"
                raise UsageError(f"{piece!r} is not of the form NAME=VALUE", where=flag, remedy=remedy)
    return pairs


def _explain_problem(
    problem: Mapping[str, Any], flags: Mapping[tuple[str, ...], str], config: type[pydantic.BaseModel]
) -> tuple[str, str | None]:
    """Return what is wrong, and the flag of the option; None where it is not one option's."""
    location = tuple(str(part) for part in problem["loc"])
    for length in range(len(location), 0, -1):
        flag = flags.get(location[:length])
        if flag is not None:
            return describe_problem(problem, model=config), flag
    return describe_problem(problem, show_input=False), None
