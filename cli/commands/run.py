"""`rlt-data run`: run the stages of a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, assert_never

import typer

from rlt_data.terminal import print_text

from ..common import (
    ForceOption,
    JsonOption,
    LakeOption,
    QuietOption,
    RecipesArgument,
    VerifyOption,
    open_lake,
    print_json,
    print_rows,
)
from ..reports import print_result

if TYPE_CHECKING:
    from rlt_data.recipe.load import LoadedRecipe
    from rlt_data.recipe.run import PlannedState, PlannedStep


def command(
    recipes: RecipesArgument,
    set: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Set one key, as in --set generate.samples=8; repeatable."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and which stages are done; run nothing.")
    ] = False,
    lake: LakeOption = None,
    json: JsonOption = False,
    force: ForceOption = False,
    quiet: QuietOption = False,
    verify: VerifyOption = False,
) -> None:
    """Run the stages of a recipe (TOML), in the order of the pipeline.

    A finished stage is not run again, and an interrupted one resumes: repeat the same command until all is
    done. Paths in a recipe are relative to the working directory.
    """
    from rlt_data.progress import Reporter
    from rlt_data.recipe.load import load_recipe
    from rlt_data.recipe.run import plan_recipe, run_recipe

    loaded = load_recipe(recipes, set or [])
    opened = open_lake(lake if lake is not None else loaded.lake, create=True, verify=verify)
    if dry_run:
        _print_plan(loaded, plan_recipe(loaded, opened), as_json=json)
        return
    reporter = Reporter(quiet=quiet or json)
    summaries = run_recipe(
        loaded,
        opened,
        force=force,
        reporter=reporter,
        on_summary=None if json else lambda summary: print_result(opened, summary),
    )
    if json:
        print_json([summary.model_dump(mode="json") for summary in summaries])


def _print_plan(loaded: LoadedRecipe, plan: list[PlannedStep], *, as_json: bool) -> None:
    if as_json:
        resolved = loaded.recipe.model_dump(mode="json", exclude_none=True)
        steps = [
            {
                "stage": planned.step.section,
                "state": planned.state,
                "run_id": planned.run_id,
                "config": planned.step.config.model_dump(mode="json"),
            }
            for planned in plan
        ]
        print_json({"recipe": resolved, "plan": steps})
        return
    print_rows([_make_row(planned) for planned in plan], wrap="settings")
    left = sum(planned.state != "finished" for planned in plan)
    print_text(f"\n{left} of {len(plan)} stages to run" if left else "\nall done")


def _make_row(planned: PlannedStep) -> dict[str, Any]:
    given = planned.step.config.model_dump(mode="json", exclude_unset=True)
    return {
        "stage": planned.step.section,
        "state": _describe_state(planned.state),
        "run": (planned.run_id or "")[:12],
        "settings": ", ".join(f"{name}={value}" for name, value in given.items()),
    }


def _describe_state(state: PlannedState) -> str:
    match state:
        case "finished":
            return "done"
        case "interrupted":
            return "interrupted: resumes"
        case "new":
            return "to do"
        case "waits":
            return "to do, after the stages above"
        case _:
            assert_never(state)
