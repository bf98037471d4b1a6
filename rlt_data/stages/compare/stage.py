"""Compare: scores of models on tasks, and paired differences on the same questions."""

from __future__ import annotations

from collections.abc import Sequence

from rlt_data.errors import UsageError
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.stages.compare.config import CompareConfig
from rlt_data.stages.compare.models import ComparedModel, check_tasks, choose_models
from rlt_data.stages.compare.results import (
    Difference,
    ModelScore,
    combine_overall,
    find_common_tasks,
    find_differences,
    make_difference_rows,
    make_score_rows,
    score_models,
)
from rlt_data.stages.compare.rows import ModelRows, describe_settings, read_model_rows
from rlt_data.stages.compare.words import describe_difference
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.selection import list_finished_writers
from rlt_data.stages.runtime.stage import stage


@stage(CompareConfig)
def compare(lake: Lake, config: CompareConfig) -> Preparation:
    """Compare models on the same questions: scores, paired differences, and the samples that would separate.

    A task's score is avg@k with a 95% interval: Wilson's for one sample a question, else a bootstrap over
    questions. Differences from the baseline are taken question by question, on the questions that both models
    have. The overall score is the mean over the tasks that all models have. Of several settings under which a
    model was evaluated, the newest counts; of several grades, the newest. Each run writes a whole new set.

    Raises `UsageError` for a model, run or task without evaluations, and where nothing is graded.
    """
    models = choose_models(lake, config)
    check_tasks(lake, config)
    evaluate_runs = list_finished_writers(lake, "evaluations")
    grade_runs = list_finished_writers(lake, "grades")

    def execute(run: StageRun) -> None:
        parts = read_model_rows(run, config, models, evaluate_runs=evaluate_runs, grade_runs=grade_runs)
        if not parts:
            raise UsageError(
                "there are no graded evaluations to compare",
                where=f"models: {', '.join(model.label for model in models)}; tasks: "
                f"{', '.join(config.tasks) or 'all'}; extraction: {config.extraction}",
                remedy="grade them first (rlt-data grade), or widen the selection",
            )
        _compare(run, config, models, parts)

    return Preparation(
        execute,
        identity={
            "models": [[model.name, model.run_id] for model in models],
            "evaluate_runs": evaluate_runs,
            "grade_runs": grade_runs,
        },
    )


def _compare(
    run: StageRun, config: CompareConfig, models: Sequence[ComparedModel], parts: Sequence[ModelRows]
) -> None:
    scores = score_models(config, parts)
    tasks = find_common_tasks(models, scores)
    differences = find_differences(config, models, scores)
    if len(tasks) > 1:
        differences += combine_overall(models, differences, tasks)
    rows = [
        *make_score_rows(config, models, scores, tasks),
        *make_difference_rows(config, differences, scores),
    ]
    for row in rows:
        row["comparison_id"] = hash_content(
            "comparison", run.run_id, row["task"], row["model"], row.get("baseline")
        )
    run.append("comparisons", rows)
    run.summary.extra["models"] = [model.label for model in models]
    _note_gaps(run, models, scores, tasks)
    _note_disjoint(run, models, scores, differences)
    _note_completions(run, parts)
    _note_differences(run, differences, scores)


def _note_gaps(
    run: StageRun, models: Sequence[ComparedModel], scores: Sequence[ModelScore], tasks: Sequence[str]
) -> None:
    having = {(score.part.task, score.part.model) for score in scores}
    every = sorted({score.part.task for score in scores})
    for task in every:
        missing = [model.label for model in models if (task, model) not in having]
        if missing:
            run.note(f"{task}: no graded evaluations of {', '.join(missing)}")
    if len(every) > 1 and tasks != every:
        run.note(
            f"overall is the mean over {', '.join(tasks)}, the tasks that all models have"
            if len(tasks) > 1
            else "there is no overall score: fewer than two tasks have scores of all models"
        )


def _note_disjoint(
    run: StageRun,
    models: Sequence[ComparedModel],
    scores: Sequence[ModelScore],
    differences: Sequence[Difference],
) -> None:
    baseline = models[0]
    shared = {score.part.task for score in scores if score.part.model == baseline}
    compared = {(difference.task, difference.model) for difference in differences}
    for score in scores:
        task, model = score.part.task, score.part.model
        if model != baseline and task in shared and (task, model) not in compared:
            run.note(f"{task}: {model.label} and {baseline.label} have no question in common")


def _note_completions(run: StageRun, parts: Sequence[ModelRows]) -> None:
    """Note completions whose verdict says little about the model."""
    for part in parts:
        rows, model = part.rows, part.model.label
        truncated = rows.filter(rows.get_column("truncated")).height
        if truncated:
            run.note(f"{part.task}: {truncated} of {rows.height} completions of {model} were truncated")
        for verdict in ("timed_out", "failed", "ungradable"):
            number = rows.filter(rows.get_column("verdict") == verdict).height
            if number:
                run.note(
                    f"{part.task}: {number} of {rows.height} completions of {model} have the verdict "
                    f"{verdict} and count as wrong"
                )
        for name, what in (("grader", "graders"), ("engine", "engines"), ("source", "sources")):
            found = rows.get_column(name).drop_nulls().unique().sort().to_list()
            if len(found) > 1:
                run.note(f"{part.task}: completions of {model} come from several {what}: {', '.join(found)}")


def _note_differences(run: StageRun, differences: Sequence[Difference], scores: Sequence[ModelScore]) -> None:
    parts = {(score.part.task, score.part.model): score.part for score in scores}
    for difference in differences:
        model, baseline = difference.model.label, difference.baseline.label
        first = parts.get((difference.task, difference.model))
        second = parts.get((difference.task, difference.baseline))
        if first is not None and second is not None:
            if difference.settings:
                run.note(
                    f"{difference.task}: {model} and {baseline} were not evaluated alike: {model} with "
                    f"{describe_settings(first.settings, difference.settings)}; {baseline} with "
                    f"{describe_settings(second.settings, difference.settings)}"
                )
            graders = [set(part.rows.get_column("grader").unique()) for part in (first, second)]
            if graders[0] != graders[1]:
                run.note(f"{difference.task}: {model} and {baseline} were graded by different graders")
            paired = difference.paired
            if paired.only_model or paired.only_baseline:
                run.note(
                    f"{difference.task}: {paired.questions} questions are compared; left out are "
                    f"{paired.only_model} that only {model} has and {paired.only_baseline} that only "
                    f"{baseline} has"
                )
        run.note(describe_difference(difference))
