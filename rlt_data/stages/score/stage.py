"""Score: per-token log-probabilities of the traces are stored, and rewards derived from them."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from rlt_data.formats import Role, check_template, load_format
from rlt_data.lake import Lake
from rlt_data.models import ModelIdentity, choose_device, choose_dtype, load_tokenizer
from rlt_data.reward.backends.opening import BACKENDS
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.selection import keep_rows, limit_rows, select_rows
from rlt_data.stages.runtime.stage import stage
from rlt_data.stages.score.backends import open_backends, resolve_student
from rlt_data.stages.score.config import ScoreConfig
from rlt_data.stages.score.group import GroupWork, score_rows
from rlt_data.stages.score.noise_check import check_noise
from rlt_data.stages.score.progress import ScoredTraces
from rlt_data.stages.score.rows import ScoreKey
from rlt_data.stages.score.trace_groups import ScoreGroup, list_groups

TRACE_COLUMNS = (
    "trace_id", "question_id", "think", "state", "truncated", "teacher_revision", "completion_token_ids",
    "completion_logprobs", "logprob_mode", "logprob_dtype", "temperature", "top_p", "top_k",
)  # fmt: skip


@stage(ScoreConfig)
def score(lake: Lake, config: ScoreConfig) -> Preparation:
    """Score traces with a student model and store per-token log-probabilities and the reward.

    Student texts contain the true solution in place of the teacher's (label substitution). Student and
    teacher log-probabilities are compared token by token; a trace for which that is impossible, that is too
    long for a model, or that has no explanation goes to `rejects`. A trace that was scored before with the
    same weights, temperatures, format and floating-point type is not scored again: the reward stage derives
    other rewards without a model.

    Raises `UsageError` where teacher and student split text into different tokens, `ModelError` where a
    model cannot be found or the teacher's weights are not those that wrote the traces, and
    `StageStoppedError` where log-probabilities stored by an engine differ from those of the scorer.
    """
    students = [resolve_student(name, config) for name in config.students]
    selected = keep_rows(lake, lake.table("traces").scan(), "traces", config.where)
    groups = list_groups(limit_traces(selected, config), teacher=config.teacher, format=config.format)
    teachers = {group.teacher.content_key: group.teacher for group in groups if group.teacher is not None}
    dtype = choose_dtype(config.dtype, choose_device(config.device))
    formats = {name: load_format(name).identity_text() for name in {group.format for group in groups}}
    return Preparation(
        lambda run: _score_groups(run, config, students, groups, dtype),
        models=[*students, *teachers.values()],
        identity={
            "dtype": dtype,
            "formats": formats,
            **({"model_options": config.model_options} if config.model_options else {}),
        },
    )


def limit_traces(traces: pl.LazyFrame, config: ScoreConfig) -> pl.LazyFrame:
    """Keep the first `config.limit` traces, question by question."""
    return limit_rows(traces, config.limit, key="trace_id", order=["question_id", "trace_id"])


def _score_groups(
    run: StageRun,
    config: ScoreConfig,
    students: Sequence[ModelIdentity],
    groups: Sequence[ScoreGroup],
    dtype: str,
) -> None:
    from rlt_data.reward.scoring.loading import ModelCache

    _check_templates(run, students, groups)
    progress = ScoredTraces(run)
    models = ModelCache(dtype=dtype, device=config.device)
    backends = open_backends(config, models, dtype, run.reporter.message)
    # A server does not report the type in which it computes.
    quantized = config.model_options.get("quantization")
    stored = "unknown" if BACKENDS[config.backend].served else f"{dtype}+{quantized}" if quantized else dtype
    try:
        for group in groups:
            key = ScoreKey(config, group, stored, run.attempt)
            work = GroupWork(run, config, group, models, key, stored, progress, backends)
            _score_group(work, students)
            models.keep_only(students)
    finally:
        if backends is not None:
            backends.close()


def _check_templates(run: StageRun, students: Sequence[ModelIdentity], groups: Sequence[ScoreGroup]) -> None:
    """Check every chat template before the first text is scored; note what it drops, moves or adds.

    Raises `ModelError` where texts of a group's format cannot be rendered through one.
    """
    tokenizers = {}
    for group in groups:
        format = load_format(group.format)
        models: list[tuple[ModelIdentity, Role]] = [(student, "student") for student in students]
        models += [(group.teacher, "teacher")] if group.teacher is not None else []
        for identity, role in models:
            if identity.content_key not in tokenizers:
                tokenizers[identity.content_key] = load_tokenizer(identity)
            tokenizer = tokenizers[identity.content_key]
            for note in check_template(format, tokenizer, role, name=identity.name):
                run.note(note)


def _score_group(work: GroupWork, students: Sequence[ModelIdentity]) -> None:
    run, config, group = work.run, work.config, work.group
    questions = run.read("questions").select("question_id", "question", "solution")
    selected = limit_traces(select_rows(run, "traces", config.where), config)
    traces = group.filter(selected).select(TRACE_COLUMNS)
    rows = traces.join(questions, on="question_id", how="left").sort("question_id", "trace_id").collect()
    if group.teacher is None and config.teacher == "auto" and rows.height:
        run.note(
            f"{rows.height:,} traces name no teacher, so only r_SS is scored; add r_KL with --teacher MODEL"
        )
    if config.noise_check:
        check_noise(work, students, rows)
    missing = work.progress.list_missing(rows.get_column("trace_id").to_list(), students, work.key)
    for names, trace_ids in missing.items():
        wanted = [student for student in students if student.name in names]
        score_rows(work, wanted, rows.filter(pl.col("trace_id").is_in(trace_ids)))
    already = work.progress.count_scored_by_others(rows.get_column("trace_id").to_list(), students, work.key)
    if already:
        run.note(
            f"{already:,} traces were scored before; rlt-data reward derives other rewards from their scores"
        )
