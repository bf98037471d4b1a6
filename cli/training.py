"""The commands `train-teacher` and `train-student`, made from the roles of training recipes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from rlt_data.terminal import print_text, show_block

from .common import (
    ForceOption,
    JsonOption,
    LakeOption,
    QuietOption,
    RecipesArgument,
    VerifyOption,
    open_lake,
    print_json,
    print_rows,
    read_number,
)
from .summary import print_summary

if TYPE_CHECKING:
    from rlt_data.lake import Lake
    from rlt_data.recipe.training import LoadedTraining
    from rlt_data.training.registry import TrainingRole

NOTES = """\
Run the same command again until it is done: an interrupted training resumes from its last checkpoint. To
train in several processes: torchrun --nproc-per-node N --no-python rlt-data {name} RECIPE, or accelerate
launch."""


def make_training_command(role: TrainingRole) -> Callable[..., None]:
    """Make the command that runs the training recipes of one role."""

    def command(
        recipes: RecipesArgument,
        set: Annotated[
            list[str] | None,
            typer.Option(
                "--set", metavar="KEY=VALUE", help="Set one key, as in --set sft.limit=100; repeatable."
            ),
        ] = None,
        dry_run: Annotated[
            bool,
            typer.Option(
                "--dry-run",
                help="Show the whole recipe, its steps, tokens and memory, and any problems; run nothing.",
            ),
        ] = False,
        processes: Annotated[
            int | None,
            typer.Option(
                parser=read_number(int, 1, 1_000_000),
                metavar="INTEGER",
                help="With --dry-run: the number of processes that the training will have.",
            ),
        ] = None,
        lake: LakeOption = None,
        json: JsonOption = False,
        force: ForceOption = False,
        quiet: QuietOption = False,
        verify: VerifyOption = False,
    ) -> None:
        from rlt_data.errors import UsageError
        from rlt_data.progress import Reporter
        from rlt_data.recipe.training import load_training, run_training_recipe

        loaded = load_training(recipes, set or [], role=role.name)
        opened = open_lake(lake if lake is not None else loaded.lake, create=True, verify=verify)
        main = os.environ.get("RANK", "0") == "0"
        if dry_run:
            if main:
                _print_plan(loaded, opened, processes, as_json=json)
            return
        if processes is not None:
            raise UsageError(
                "--processes is for --dry-run",
                remedy=f"torchrun --nproc-per-node N --no-python rlt-data {role.command} RECIPE",
            )
        summaries = run_training_recipe(
            loaded,
            opened,
            force=force,
            reporter=Reporter(quiet=quiet or json or not main),
            on_summary=None if json else lambda summary: print_summary(opened, summary, as_json=False),
        )
        if json and main:
            print_json([summary.model_dump(mode="json") for summary in summaries])

    command.__doc__ = f"{role.details}\n\n{NOTES.format(name=role.command)}"
    return command


def _print_plan(loaded: LoadedTraining, lake: Lake, processes: int | None, *, as_json: bool) -> None:
    from rlt_data.recipe.training_plan import plan_training

    plan = plan_training(loaded, lake, processes=processes)
    if as_json:
        print_json(plan)
        return
    print_json(plan["recipe"])
    for section, lines in plan["sections"].items():
        print_text(f"\n{section}")
        print_rows([{"quantity": name, "value": text} for name, text in lines.items()])
    print_text()
    for refusal in plan["refused"]:
        print_text(f"problem: {show_block(refusal)}")
    if not plan["refused"]:
        print_text("no problems found")
