"""Evaluate: models answer the questions of tasks; every completion and every verdict is stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import polars as pl

from rlt_data.errors import UsageError, require_module
from rlt_data.formats import ConversationFormat, check_template, load_format
from rlt_data.lake import Lake
from rlt_data.settings import load_settings
from rlt_data.stages.evaluate.asking import Asker
from rlt_data.stages.evaluate.completions import (
    CompletionRows,
    CompletionSource,
    append_completions,
    open_completions,
    read_file,
    read_traces,
)
from rlt_data.stages.evaluate.config import EvaluateConfig
from rlt_data.stages.evaluate.golds import check_golds
from rlt_data.stages.evaluate.samples import EvaluatedTask, Sample, describe_task, drop_existing, list_samples
from rlt_data.stages.grade.grading import GradeWriter, list_grade_ids
from rlt_data.stages.grade.results import list_results
from rlt_data.stages.runtime.contract import StageSummary
from rlt_data.stages.runtime.engine_models import EngineModel, open_model_engine, resolve_engine_model
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.selection import select_rows
from rlt_data.stages.runtime.stage import stage
from rlt_data.tasks.definition import load_task
from rlt_data.tasks.grading.base import Grader, GraderName, GraderSettings
from rlt_data.tasks.grading.opening import open_graders
from rlt_data.tasks.questions import (
    BadQuestion,
    QuestionSource,
    TaskQuestion,
    open_questions,
    read_lake_questions,
)

UNANSWERED = "unanswered"
"""Count of the samples that got no completion because the engine failed; the next call asks them again."""


@dataclass
class Evaluation:
    """One evaluation as it is prepared: tasks with their questions, models, format, ready completions."""

    config: EvaluateConfig
    format: ConversationFormat
    tasks: Sequence[EvaluatedTask]
    sources: Sequence[QuestionSource | None]
    models: Sequence[EngineModel]
    completions: CompletionSource | None
    keys: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    """The evaluation ids of each task and model."""


@stage(EvaluateConfig)
def evaluate(lake: Lake, config: EvaluateConfig) -> Preparation:
    """Evaluate models on tasks: sample completions, grade them, and print scores with 95% intervals.

    Completions go to `evaluations` and verdicts to `grades`, so answers can be graded again without a model
    (`rlt-data grade`). A completion of the same prompt, weights, sampling and seed that is in the lake is not
    sampled again. Nothing that a model writes stops the stage: a truncated answer is a row and is counted, a
    prompt that does not fit the context is a row that failed. Samples that got no answer because the engine
    or its server died are rejects, and the same command asks them again.

    Raises `UsageError` for an unknown task or options that contradict each other, `InputError` where
    questions cannot be read, `ModelError` and `MissingExtraError` where a model cannot be run, and
    `EngineError` where its engine does not start.
    """
    settings = load_settings()
    format = load_format(config.format, settings)
    definitions = [load_task(name, settings).task for name in config.task]
    if len({task.name for task in definitions}) < len(definitions):
        raise UsageError("two of the tasks have the same name", where=", ".join(config.task))
    tasks = [describe_task(config, task, format) for task in definitions]
    completions = None if config.completions is None else open_completions(config.completions, config.map)
    from_lake = config.where is not None
    if config.where_traces is not None and lake.table("traces").count() == 0:
        raise UsageError("the lake has no traces", where=lake.uri, remedy="rlt-data ingest FILE")
    sources: list[QuestionSource | None] = [
        None
        if from_lake or config.is_answered
        else open_questions(task, data=config.data, layout=config.layout, mapping=config.map)
        for task in definitions
    ]
    if from_lake:
        chosen = [task.name for task in definitions if task.choices is not None]
        if chosen:
            raise UsageError(
                f"the task {chosen[0]} needs options, which questions of the lake do not have",
                where="--where",
                remedy="give the questions with their options: --data FILE",
            )
        if lake.table("questions").count() == 0:
            raise UsageError("the lake has no questions", where=lake.uri, remedy="rlt-data ingest FILE")
    models = [
        resolve_engine_model(config, name, role="model", settings=settings)
        for name in config.model
        if not config.is_answered
    ]
    evaluation = Evaluation(config, format, tasks, sources, models, completions)
    return Preparation(
        lambda run: _run_evaluation(run, evaluation),
        models=[model.model for model in models],
        identity=_identify(lake, evaluation),
        is_intact=_is_answered,
    )


def _identify(lake: Lake, evaluation: Evaluation) -> dict[str, Any]:
    config = evaluation.config
    identity: dict[str, Any] = {
        "tasks": [
            [task.list_identity(), task.samples, list(task.task.graders), source.identity if source else None]
            for task, source in zip(evaluation.tasks, evaluation.sources, strict=True)
        ],
        "format": evaluation.format.identity_text(),
    }
    read = {"questions": config.where, "traces": config.where_traces}
    for table in [name for name, where in read.items() if where is not None]:
        state = lake.table(table).state()
        identity[table] = [state.rows, state.digest]
    if config.is_answered:
        source = evaluation.completions
        identity["completions"] = [source.identity if source else None, *config.model]
    if config.is_served:
        identity["renderers"] = [
            model.renderer.content_key if model.renderer else None for model in evaluation.models
        ]
    if config.model_options:
        identity["model_options"] = config.model_options
    return identity


def _is_answered(summary: StageSummary) -> bool:
    """Whether a finished run needs no second try: no sample was left without an answer by its engine."""
    return not summary.extra.get(UNANSWERED)


def _run_evaluation(run: StageRun, evaluation: Evaluation) -> None:
    config = evaluation.config
    graders: dict[str, dict[GraderName, Grader]] = {}
    settings = GraderSettings(config.grade_seconds, config.processes, run_code=config.run_code)
    with ExitStack() as stack:
        for task in evaluation.tasks:
            graders[task.task.name] = stack.enter_context(open_graders(task.task.graders, settings))
        if config.is_answered:
            only = evaluation.tasks[0].task
            evaluation.keys[only.name, config.model[0]] = append_completions(
                run,
                _read_completions(run, evaluation),
                only,
                config.model[0],
                evaluation.format,
                limit=config.limit,
            )
        else:
            _ask_models(run, evaluation, graders)
        run.flush()
        for task in evaluation.tasks:
            _grade(run, evaluation, task, graders[task.task.name])
    run.flush()
    rows = _select(run, sorted(set().union(*evaluation.keys.values())))
    run.summary.extra["results"] = list_results(run.lake, rows, run.lake.table("grades").scan(), run.run_id)
    _note_results(run, config, rows)


def _read_completions(run: StageRun, evaluation: Evaluation) -> CompletionRows:
    if evaluation.completions is not None:
        return read_file(run, evaluation.completions)
    traces = select_rows(run, "traces", evaluation.config.where_traces)
    return read_traces(traces, run.read("questions"))


def _ask_models(
    run: StageRun, evaluation: Evaluation, graders: Mapping[str, Mapping[GraderName, Grader]]
) -> None:
    """Sample the missing completions of every model on every task."""
    config = evaluation.config
    questions: dict[str, list[TaskQuestion]] = {}
    for task, source in zip(evaluation.tasks, evaluation.sources, strict=True):
        name = task.task.name
        questions[name] = list(islice(_read_questions(run, source, config), config.limit))
        if not questions[name]:
            raise UsageError(f"the task {name} has no question", where=_name_selection(config))
        if task.task.grader != "code":  # Its true answers are unit tests.
            check_golds(run, task.task, graders[name][task.task.grader], questions[name])
    for model in evaluation.models:
        missing: list[tuple[EvaluatedTask, dict[str, Sample]]] = []
        for task in evaluation.tasks:
            samples = list_samples(config, task, model, questions[task.task.name])
            evaluation.keys[task.task.name, model.model.name] = set(samples)
            missing.append((task, drop_existing(run, samples, task=task.task.name, model=model.model.name)))
        if any(samples for _, samples in missing):
            _ask(run, evaluation, model, missing)


def _ask(
    run: StageRun,
    evaluation: Evaluation,
    model: EngineModel,
    missing: Sequence[tuple[EvaluatedTask, dict[str, Sample]]],
) -> None:
    config, name = evaluation.config, model.model.name
    if config.is_served:
        # Before a tokenizer is loaded, which takes seconds.
        require_module("httpx", "openai")
        from rlt_data.engines.openai.server import await_server

        await_server(config.read_server_options(), notify=run.reporter.message)
    if model.renderer is not None and not config.uses_chat:
        for note in check_template(evaluation.format, model.load_tokenizer("model"), "student", name=name):
            run.note(note)
    with open_model_engine(run, config, model.model) as engine:
        for task, samples in missing:
            if not samples:
                continue
            asker = Asker(run, task, model, evaluation.format, engine, config.seed)
            with run.track(f"{name} on {task.task.name}", len(samples), "completions") as progress:
                asker.ask(samples, progress)
            run.flush()
        run.summary.extra |= engine.figures
        if not config.is_served:  # The notes on servers are about log-probabilities, which are not used here.
            for note in engine.notes:
                run.note(note)


def _read_questions(
    run: StageRun, source: QuestionSource | None, config: EvaluateConfig
) -> Iterator[TaskQuestion]:
    if source is None:
        return read_lake_questions(select_rows(run, "questions", config.where))

    def reject(bad: BadQuestion) -> None:
        run.reject(
            source=bad.source,
            source_row=bad.source_row,
            reason=bad.reason,
            detail=bad.detail,
            content=None if bad.content is None else bad.content[:1_000_000],
        )

    for note in source.notes:
        run.note(note)
    return source.read(reject)


def _grade(
    run: StageRun, evaluation: Evaluation, task: EvaluatedTask, graders: Mapping[GraderName, Grader]
) -> None:
    """Grade the completions of one task that have no grade of these graders."""
    name = task.task.name
    keys = [key for (owner, _), found in evaluation.keys.items() if owner == name for key in found]
    rows = _select(run, keys)
    existing = list_grade_ids(run, rows)
    with run.track(f"grade {name}", len(keys), "completions") as progress:
        GradeWriter(run, graders, primary=task.task.grader).grade(rows, existing, progress)


def _select(run: StageRun, keys: Sequence[str]) -> pl.LazyFrame:
    wanted = pl.LazyFrame({"evaluation_id": list(keys)}, schema={"evaluation_id": pl.String})
    return run.written("evaluations").join(wanted, on="evaluation_id", how="semi", maintain_order="left")


def _note_results(run: StageRun, config: EvaluateConfig, rows: pl.LazyFrame) -> None:
    """Note what lowers the scores besides wrong answers."""
    reasons = pl.col("failure").str.split(":").list.first().unique().sort().str.join(", ")
    failures = rows.group_by("task", "model").agg(
        pl.col("failure").count().alias("failed"), pl.len().alias("samples"), reasons.alias("reasons")
    )
    for task, model, failed, samples, names in failures.sort("task", "model").collect().iter_rows():
        if failed:
            run.note(f"{task}: {model} could not be asked {failed:,} of {samples:,} samples ({names})")
    for result in run.summary.extra["results"]:
        if result["extraction"] == "stated" and result["truncated"]:
            run.note(
                f"{result['task']}: {result['truncated']:,} of {result['completions']:,} completions of "
                f"{result['model']} were truncated; if all of them were wrong the score would be "
                f"{result['low_bound']:.1%}, if all were right {result['high_bound']:.1%}"
                + ("" if config.is_answered else "; raise --max-tokens")
            )
    mine = (pl.col("run_id") == run.run_id) & pl.col("key").is_not_null()
    unanswered = run.written("rejects").filter(mine).select(pl.len()).collect().item()
    if unanswered:
        run.note(
            f"{unanswered:,} samples got no answer because the engine failed, and are not in the scores: "
            "run the same command again to ask them"
        )


def _name_selection(config: EvaluateConfig) -> str | None:
    if config.where is not None:
        return f"where = {config.where!r}"
    return config.data
