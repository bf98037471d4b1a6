"""The models that are compared, as the user named them: by name, or by a run that evaluated them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from rlt_data.errors import LakeError, UsageError
from rlt_data.lake import Lake
from rlt_data.stages.compare.config import CompareConfig
from rlt_data.stages.runtime.selection import list_finished_writers
from rlt_data.suggestions import find_nearest, suggest_name

SHORT_ID = 12


@dataclass(frozen=True)
class ComparedModel:
    """One model: `name` as in evaluations; `run_id` where one run's evaluations are meant.

    `label` names it in tables: the name, with the run where one name stands for several.
    """

    name: str
    run_id: str | None
    label: str


def choose_models(lake: Lake, config: CompareConfig) -> list[ComparedModel]:
    """Find the models of a comparison, the baseline first.

    Raises `UsageError` where a name is neither a model with evaluations nor a run of evaluate, and where
    there are no evaluations at all.
    """
    names = list_evaluated(lake)
    if not names:
        raise UsageError(
            "no model has been evaluated in this lake",
            where=lake.uri,
            remedy="rlt-data evaluate --model MODEL --task TASK",
        )
    given = list(dict.fromkeys([*([config.baseline] if config.baseline else []), *config.models]))
    if not config.models:
        given = list(dict.fromkeys([*given, *names]))
    found = dict.fromkeys(pair for text in given for pair in _resolve(lake, text, names))
    several = [name for name in {name for name, _ in found} if sum(name == other for other, _ in found) > 1]
    return [
        ComparedModel(name, run, f"{name} ({run[:SHORT_ID]})" if run and name in several else name)
        for name, run in found
    ]


def check_tasks(lake: Lake, config: CompareConfig) -> None:
    """Raise `UsageError` with the nearest name for a task on which no model was evaluated."""
    if not config.tasks:
        return
    rows = lake.table("evaluations").scan().select(pl.col("task").unique()).collect()
    tasks = rows.get_column("task").sort().to_list()
    for task in config.tasks:
        if task not in tasks:
            raise UsageError(
                f"no model was evaluated on the task {task!r}",
                where="tasks",
                remedy=suggest_name(task, tasks),
            )


def list_evaluated(lake: Lake) -> list[str]:
    """List the models with evaluations: in the order of the runs that evaluated them first."""
    rows = lake.table("evaluations").scan().select("model", "run_id").unique().collect()
    order = {run_id: position for position, run_id in enumerate(list_finished_writers(lake, "evaluations"))}
    last = len(order)
    first: dict[str, int] = {}
    for model, run_id in rows.iter_rows():
        first[model] = min(first.get(model, last), order.get(run_id, last))
    return sorted(first, key=lambda model: (first[model], model))


def _resolve(lake: Lake, text: str, names: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return the models that `text` names, each with the run where `text` is one."""
    if text in names:
        return [(text, None)]
    try:
        run = lake.run(text)
    except LakeError:
        nearest = find_nearest(text, list(names))
        raise UsageError(
            f"{text!r} is neither a model with evaluations nor the id of a run",
            where=f"models: {', '.join(names)}",
            remedy=f"did you mean {nearest!r}?" if nearest else "rlt-data log lists the runs",
        ) from None
    rows = lake.table("evaluations").scan().filter(pl.col("run_id") == run.run_id)
    models = rows.select(pl.col("model").unique()).collect().get_column("model").sort().to_list()
    if not models:
        raise UsageError(
            f"run {run.run_id[:SHORT_ID]} wrote no evaluations",
            where=f"it is a run of {run.stage}, {run.status}",
            remedy="name a run of evaluate, or a model (rlt-data log lists the runs)",
        )
    return [(model, run.run_id) for model in models]
