"""The command of a stage: its configuration defines the options, and its summary is printed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from .common import ForceOption, JsonOption, LakeOption, QuietOption, VerifyOption, open_lake
from .options import build_config, list_config_options
from .reports import find_report
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
    report = find_report(declaration.name)
    extra = {} if report is None else report.OPTIONS
    apart = {*COMMON, *extra}

    def command(ctx: typer.Context, **values: Any) -> None:
        from rlt_data.progress import Reporter

        given = {name: value for name, value in values.items() if name not in apart and _was_given(ctx, name)}
        config = build_config(stage.config, options, given)
        shown = {name: values[name] for name in extra}
        if report is not None:
            report.check_options(shown)
        lake = open_lake(values["lake"], create=True, verify=values["verify"])
        reporter = Reporter(quiet=values["quiet"] or values["json"])
        summary = stage(lake, config, force=values["force"], reporter=reporter)
        if report is None:
            print_summary(lake, summary, as_json=values["json"])
        else:
            report.print_result(lake, summary, shown, as_json=values["json"])

    command.__doc__ = (inspect.getdoc(stage) or "").split("\n\n")[0]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("ctx", keyword, annotation=typer.Context),
        *(option.make_parameter() for option in options),
        *(
            inspect.Parameter(name, keyword, annotation=annotation, default=default)
            for name, (annotation, default) in extra.items()
        ),
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
    return source is not None and source.name != "DEFAULT"
