"""A Typer group that lists commands from a table and imports a command only when it is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from rlt_data.stages.runtime.declaration import StageDeclaration
from rlt_data.suggestions import find_nearest
from rlt_data.training.registry import TrainingRole


@dataclass(frozen=True)
class Entry:
    """One command: its name, its section in the help, its line of help, and the function that it calls.

    A command is made from the declaration of its stage, or from the role of the models that it trains; one
    without either is the function `command` of the module of its name in `commands/`.
    """

    name: str
    section: str
    help: str
    twin: str
    stage: StageDeclaration | None = None
    role: TrainingRole | None = None

    def load(self) -> Callable[..., None]:
        """Import the function of the command."""
        if self.stage is not None:
            from .stage import make_stage_command

            return make_stage_command(self.stage)
        if self.role is not None:
            from .training import make_training_command

            return make_training_command(self.role)
        name = f"{__package__}.commands.{self.name.replace('-', '_')}"
        command: Callable[..., None] = import_module(name).command
        return command


class PlainCommand(TyperCommand):
    """A command whose help groups options by panel, in plain text."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options, panel by panel, in the order of their declaration."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                default = "Options" if parameter.param_type_name == "option" else "Arguments"
                panel = getattr(parameter, "rich_help_panel", None) or default
                sections.setdefault(panel, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class LazyGroup(TyperGroup):
    """A group over `entries`: listing and help import nothing, a call imports one module."""

    entries: ClassVar[Sequence[Entry]] = ()

    def list_commands(self, ctx: Any) -> list[str]:
        """List the names of all commands, in the order of the table."""
        return [entry.name for entry in self.entries]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import and build the command `cmd_name`; None where there is none."""
        for entry in self.entries:
            if entry.name == cmd_name:
                return self._load(entry)
        return None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that `args` begin with; the error for an unknown name suggests the nearest one."""
        try:
            return super().resolve_command(ctx, args)
        except typer.TyperException as error:
            nearest = find_nearest(args[0], self.list_commands(ctx))
            if nearest:
                error.message += f" Did you mean {nearest!r}?"
            raise

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands, section by section, from the table alone."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for entry in self.entries:
            sections.setdefault(entry.section, []).append((entry.name, entry.help))
        width = max(len(entry.name) for entry in self.entries)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), text) for name, text in records])

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete command names from the table alone."""
        from typer._click.shell_completion import CompletionItem

        return [
            CompletionItem(entry.name, help=entry.help)
            for entry in self.entries
            if entry.name.startswith(incomplete)
        ]

    def _load(self, entry: Entry) -> Any:
        single = typer.Typer(add_completion=False, rich_markup_mode=None)
        settings = dict(self.context_settings)
        single.command(name=entry.name, cls=PlainCommand, context_settings=settings)(entry.load())
        return get_command(single)
