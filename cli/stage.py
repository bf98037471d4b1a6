"""The command of a stage: its configuration defines the options, and its summary is printed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from .common import ForceOption, JsonOption, LakeOption, QuietOption, VerifyOption, open_lake
from .options import build_config, list_config_options
from .summary import print_summary

if TYPE_CHECKING:
    from rlt_data.stages.runtime.declaration import StageDeclaration

COMMON = {
    "lake": LakeOption,
    "json": JsonOption,
    "force": ForceOption,
    "quiet": QuietOption,
    "verify": VerifyOption,
}


def make_stage_command(declaration: StageDeclaration) -> Callable[..., None]:
    """Make the command of one stage.

    Each field of its configuration is an option; the declaration lists those with another name and those
    given by position. The help text is the first paragraph of the stage's docstring.
    """
    from rlt_data.stages.runtime.stage import load_stage

    stage = load_stage(declaration)
    options = list_config_options(stage.config, names=declaration.flags, arguments=declaration.arguments)

    def command(ctx: typer.Context, **values: Any) -> None:
        from rlt_data.progress import Reporter

        given = {name: value for name, value in values.items() if _was_given(ctx, name)}
        config = build_config(stage.config, options, given)
        lake = open_lake(values["lake"], create=True, verify=values["verify"])
        reporter = Reporter(quiet=values["quiet"] or values["json"])
        summary = stage(lake, config, force=values["force"], reporter=reporter)
        print_summary(lake, summary, as_json=values["json"])

    command.__doc__ = (inspect.getdoc(stage) or "").split("\n\n")[0]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("ctx", keyword, annotation=typer.Context),
        *(option.make_parameter() for option in options),
        *(
            inspect.Parameter(name, keyword, annotation=kind, default=None if name == "lake" else False)
            for name, kind in COMMON.items()
        ),
    ]
    # Typer reads the signature; `values` would hide the options from it.
    vars(command)["__signature__"] = inspect.Signature(parameters)
    return command


def _was_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return name not in COMMON and source is not None and source.name != "DEFAULT"
