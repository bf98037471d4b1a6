"""`rlt-data train-teacher`: a recipe of SFT warm-up and GRPO."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from ..common import (
    ForceOption,
    JsonOption,
    LakeOption,
    QuietOption,
    RecipesArgument,
    open_lake,
    print_json,
    print_rows,
)
from ..summary import print_summary

if TYPE_CHECKING:
    from rlt_data.lake import Lake
    from rlt_data.recipe.training import LoadedTraining


def command(
    recipes: RecipesArgument,
    set: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set one key, as in --set grpo.steps=8; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Show the resolved recipe, its arithmetic and what would be refused; run nothing.",
        ),
    ] = False,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="With --dry-run: the number of processes that it is to be started in."),
    ] = None,
    lake: LakeOption = None,
    json: JsonOption = False,
    force: ForceOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a teacher: SFT warm-up on explanations from the lake, then GRPO with a student's reward.

    Run the same command again until it is done: what was cut off goes on from its last checkpoint. Several
    processes: torchrun --nproc-per-node N --no-python rlt-data train-teacher RECIPE, or accelerate launch.
    """
    from rlt_data.errors import UsageError
    from rlt_data.progress import Reporter
    from rlt_data.recipe.training import load_training, train_teacher

    loaded = load_training(recipes, set or [])
    opened = open_lake(lake if lake is not None else loaded.lake, create=True)
    main = os.environ.get("RANK", "0") == "0"
    if dry_run:
        if main:
            _print_plan(loaded, opened, processes, as_json=json)
        return
    if processes is not None:
        raise UsageError(
            "--processes is for --dry-run",
            remedy="torchrun --nproc-per-node N --no-python rlt-data train-teacher RECIPE",
        )
    summaries = train_teacher(
        loaded,
        opened,
        force=force,
        reporter=Reporter(quiet=quiet or json or not main),
        on_summary=None if json else lambda summary: print_summary(opened, summary, as_json=False),
    )
    if json and main:
        print_json([summary.model_dump(mode="json") for summary in summaries])


def _print_plan(loaded: LoadedTraining, lake: Lake, processes: int | None, *, as_json: bool) -> None:
    from rlt_data.recipe.training_plan import plan_training

    plan = plan_training(loaded, lake, processes=processes)
    if as_json:
        print_json(plan)
        return
    print_json(plan["recipe"])
    for title in ("warm-up", "grpo"):
        if plan[title]:
            print(f"\n{title}")
            print_rows([{"what": name, "how much": text} for name, text in plan[title].items()])
    print()
    for refusal in plan["refused"]:
        print(f"would be refused: {refusal}")
    if not plan["refused"]:
        print("nothing would be refused")
