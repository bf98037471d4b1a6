"""`rlt-data lineage`: show what a run, a table or a row was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text
from rich.tree import Tree

from rlt_data.console import make_cell
from rlt_data.errors import LakeError
from rlt_data.terminal import show_line

from ..common import JsonOption, LakeOption, make_console, open_lake, print_json, warn_of_damage

if TYPE_CHECKING:
    from rlt_data.lake import Lake, LineageNode, LineageStep, RunRecord


def command(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN|TABLE|STAGE|ROW",
            help="A run id or its beginning; a table, for the newest run that wrote it; a stage, for its "
            "newest run; or the id of a row: an evaluation, a distillation example, a trace or a question. "
            "Default: the newest run of all.",
        ),
    ] = None,
    lake: LakeOption = None,
    json: JsonOption = False,
) -> None:
    """Show the runs that led to a run or a table, and what each of them read, as a tree.

    Of a row it shows the rows, runs and models that led to it: of an evaluation the model, its training, the
    distillation set, the ranking, scores and traces behind it, and the training of the teacher.
    """
    opened = open_lake(lake)
    warn_of_damage(opened)
    try:
        run = find_run(opened, name)
    except LakeError:
        node = opened.row_lineage(name) if name is not None else None
        if node is None:
            raise
        if json:
            print_json(describe_node(node))
        else:
            make_console().print(draw_node(node))
        return
    steps = opened.lineage(run.run_id)
    if json:
        print_json([describe_step(step) for step in steps])
    else:
        make_console().print(draw_tree(steps))


def find_run(lake: Lake, name: str | None) -> RunRecord:
    """Find a run by table, stage or id; without a name, the newest run of all.

    Raises `LakeError` if there is none.
    """
    from rlt_data.lake.runs import sort_by_start

    for run in reversed(sort_by_start(lake, lake.runs())):
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


def describe_node(node: LineageNode) -> dict[str, Any]:
    """Convert the lineage of a row to plain values, ready for JSON."""
    return {
        "name": node.name,
        "key": node.key,
        "facts": dict(node.facts),
        "origins": [describe_node(origin) for origin in node.origins],
    }


def draw_node(node: LineageNode, parent: Tree | None = None) -> Tree:
    """Draw the lineage of a row as a tree whose root is the row."""
    label = Text.assemble((show_line(node.name), "bold"))
    # The row itself with its whole id, which other commands take.
    key = node.key if parent is None or node.key is None else node.key[:12]
    for text in (key, *(_write_fact(name, value) for name, value in node.facts.items())):
        if text:
            label.append(f"  {show_line(text)}")
    tree = Tree(label) if parent is None else parent.add(label)
    for origin in node.origins:
        draw_node(origin, tree)
    return tree


def _write_fact(name: str, value: Any) -> str:
    match value:
        case None | "":
            return ""
        case bool():
            return f"{name.replace('_', ' ')}: {'yes' if value else 'no'}"
        case float():
            return f"{name.replace('_', ' ')} {value:.4g}"
        case int():
            return f"{name.replace('_', ' ')} {value:,}"
    if name in ("run", "revision"):
        return f"{name} {value[:12]}"
    return f"{name.replace('_', ' ')} {value}"
