"""A command made from a stage: its configuration gives the options, its summary is what is printed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from .common import ForceOption, JsonOption, LakeOption, QuietOption, open_lake
from .options import build_config, list_config_options
from .summary import print_summary

if TYPE_CHECKING:
    from rlt_data.stages.runtime.run import StageConfig, StageSummary

ConfigT = TypeVar("ConfigT", bound="StageConfig")

COMMON = {"lake": LakeOption, "json": JsonOption, "force": ForceOption, "quiet": QuietOption}


def make_stage_command(
    config: type[ConfigT],
    stage: Callable[..., StageSummary],
    *,
    names: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
    epilog: str = "",
) -> Callable[..., None]:
    """Make the command of one stage.

    Each field of `config` is an option; `names` maps a field to another flag, `arguments` lists the fields
    given by position. The help text is the first paragraph of the stage's docstring, then `epilog`.
    """
    options = list_config_options(config, names=names or {}, arguments=arguments)

    def command(ctx: typer.Context, **values: Any) -> None:
        from rlt_data.progress import Reporter

        given = {name: value for name, value in values.items() if _was_given(ctx, name)}
        built = build_config(config, options, given)
        lake = open_lake(values["lake"], create=True)
        reporter = Reporter(quiet=values["quiet"] or values["json"])
        summary = stage(lake, built, force=values["force"], reporter=reporter)
        print_summary(lake, summary, as_json=values["json"])

    paragraph = (inspect.getdoc(stage) or "").split("\n\n")[0]
    command.__doc__ = f"{paragraph}\n\n{epilog}".strip()
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
