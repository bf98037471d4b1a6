"""`rlt-data lineage`: show what a run or a table was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text
from rich.tree import Tree

from rlt_data.console import make_cell
from rlt_data.errors import LakeError
from rlt_data.terminal import show_line

from ..common import JsonOption, LakeOption, make_console, open_lake, print_json

if TYPE_CHECKING:
    from rlt_data.lake import Lake, LineageStep, RunRecord


def command(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN|TABLE|STAGE",
            help="A run id or its beginning; a table, for the newest run that wrote it; or a stage, for its "
            "newest run. Default: the newest run of all.",
        ),
    ] = None,
    lake: LakeOption = None,
    json: JsonOption = False,
) -> None:
    """Show the runs that led to a run or a table, and what each of them read, as a tree."""
    opened = open_lake(lake)
    steps = opened.lineage(find_run(opened, name).run_id)
    if json:
        print_json([describe_step(step) for step in steps])
    else:
        make_console().print(draw_tree(steps))


def find_run(lake: Lake, name: str | None) -> RunRecord:
    """Find a run by table, stage or id; without a name, the newest run of all.

    Raises `LakeError` if there is none.
    """
    runs = lake.runs()
    for run in reversed(runs):
        if name is None or name == run.stage or run.counts.get("tables", {}).get(name):
            return run
    if name is not None and name not in {table.name for table in lake.tables()}:
        return lake.run(name)
    raise LakeError(
        f"no run wrote {name}" if name else "this lake has no runs yet",
        where=lake.uri,
        remedy="rlt-data log lists the runs",
    )


def describe_step(step: LineageStep) -> dict[str, Any]:
    """Convert one step to plain values, ready for JSON."""
    return {
        "run_id": step.run.run_id,
        "stage": step.run.stage,
        "status": step.run.status,
        "depth": step.depth,
        "started_at": step.run.started_at,
        "config": dict(step.run.config),
        "models": [dict(model) for model in step.run.models],
        "inputs": [
            vars(state) | {"made_by": list(step.made_by.get(state.table, ()))} for state in step.run.inputs
        ],
        "outputs": [vars(state) for state in step.run.outputs],
        "trained_by": {revision: list(runs) for revision, runs in step.trained_by.items()},
    }


def draw_tree(steps: list[LineageStep]) -> Tree:
    """Draw the steps as a tree whose root is the first one; a run that is shown above is only named."""
    by_id = {step.run.run_id: step for step in steps}
    drawn: set[str] = set()

    def draw(step: LineageStep, parent: Tree | None) -> Tree:
        run = step.run
        again = run.run_id in drawn
        drawn.add(run.run_id)
        label = Text.assemble((show_line(run.stage), "bold"), show_line(f" {run.run_id[:12]} {run.status}"))
        if again:
            label.append(" (above)")
        else:
            label.append(show_line("".join(f"  {model['role']} {model['name']}" for model in run.models)))
        node = Tree(label) if parent is None else parent.add(label)
        if again:
            return node
        for state in (state for state in run.inputs if state.rows):
            branch = node.add(make_cell(f"{state.table}@{state.version} ({state.rows:,} rows)"))
            for maker in step.made_by.get(state.table, ()):
                # A resumed run also reads its own rows.
                if maker != run.run_id:
                    if maker in by_id:
                        draw(by_id[maker], branch)
                    else:
                        branch.add(make_cell(f"run {maker[:12]}, not recorded"))
        for model in run.models:
            trainings = step.trained_by.get(model["revision"] or "", ())
            if trainings:
                branch = node.add(make_cell(f"{model['role']} {model['name']} ({model['revision'][:12]})"))
                for training in trainings:
                    draw(by_id[training], branch)
        return node

    return draw(steps[0], None)
