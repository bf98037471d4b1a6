"""Score: students read the traces; per-token log-probabilities are stored, rewards derived from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import polars as pl

from rlt_data.formats import Role, check_template, load_format
from rlt_data.lake import Lake
from rlt_data.models import ModelIdentity, choose_device, choose_dtype, load_tokenizer
from rlt_data.progress import Reporter
from rlt_data.reward.backends.opening import BACKENDS
from rlt_data.stages.runtime.run import StageRun, StageSummary, open_run
from rlt_data.stages.runtime.selection import keep_rows, select_rows
from rlt_data.stages.score.backends import open_backends, resolve_student
from rlt_data.stages.score.config import ScoreConfig
from rlt_data.stages.score.group import GroupWork, score_rows
from rlt_data.stages.score.noise_check import check_noise
from rlt_data.stages.score.rows import ScoreKey
from rlt_data.stages.score.trace_groups import ScoreGroup, list_groups

if TYPE_CHECKING:
    from rlt_data.reward.backends.cache import BackendCache
    from rlt_data.reward.scoring.loading import ModelCache

__all__ = ["ScoreConfig", "score"]

TRACE_COLUMNS = (
    "trace_id", "question_id", "think", "state", "truncated", "teacher_revision", "completion_token_ids",
    "completion_logprobs", "logprob_mode", "logprob_dtype", "temperature", "top_p", "top_k",
)  # fmt: skip


def score(
    lake: Lake, config: ScoreConfig, *, force: bool = False, reporter: Reporter | None = None
) -> StageSummary:
    """Let students read the traces: store per-token log-probabilities, and the reward derived from them.

    Student texts hold the true solution in place of the teacher's (label substitution). Each student's
    tokens are compared with the teacher's one by one; a text for which that is impossible, too long for a
    model, or without an explanation goes to `rejects`. A trace scored before by the same weights, under
    the same temperatures, format and floating-point type, is not scored again: other reward settings are
    derived without a model by the reward stage.

    Raises `UsageError` where teacher and student cut text into different tokens, `ModelError` where a
    model cannot be had or the teacher's weights are no longer those that wrote the traces, and
    `StageStoppedError` where log-probabilities stored by an engine are off.
    """
    students = [resolve_student(name, config) for name in config.students]
    selected = keep_rows(lake, lake.table("traces").scan(), "traces", config.where)
    groups = list_groups(selected, teacher=config.teacher, format=config.format)
    teachers = {group.teacher.content_key: group.teacher for group in groups if group.teacher is not None}
    dtype = choose_dtype(config.dtype, choose_device(config.device))
    formats = {name: load_format(name).identity_text() for name in {group.format for group in groups}}
    with open_run(
        lake,
        "score",
        config,
        inputs=("questions", "traces"),
        outputs=("scores",),
        models=[*students, *teachers.values()],
        identity={
            "dtype": dtype,
            "formats": formats,
            **({"model_options": config.model_options} if config.model_options else {}),
        },
        force=force,
        reporter=reporter,
    ) as run:
        if run.already_done:
            return run.summary
        _score_groups(run, config, students, groups, dtype)
    return run.summary


def _score_groups(
    run: StageRun,
    config: ScoreConfig,
    students: Sequence[ModelIdentity],
    groups: Sequence[ScoreGroup],
    dtype: str,
) -> None:
    from rlt_data.reward.scoring.loading import ModelCache

    _check_templates(run, students, groups)
    done = set(run.written("scores").select("score_id").collect().get_column("score_id").to_list())
    models = ModelCache(dtype=dtype, device=config.device)
    backends = open_backends(config, models, dtype)
    try:
        _score_on(run, config, students, groups, models, backends, done, dtype)
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


def _score_on(
    run: StageRun,
    config: ScoreConfig,
    students: Sequence[ModelIdentity],
    groups: Sequence[ScoreGroup],
    models: ModelCache,
    backends: BackendCache | None,
    done: set[str],
    dtype: str,
) -> None:
    # A server does not report the type in which it computes.
    quantised = config.model_options.get("quantization")
    stated = "unknown" if BACKENDS[config.backend].served else f"{dtype}+{quantised}" if quantised else dtype
    questions = run.read("questions").select("question_id", "question", "solution")
    for group in groups:
        traces = group.filter(select_rows(run, "traces", config.where)).select(TRACE_COLUMNS)
        rows = traces.join(questions, on="question_id", how="left").sort("question_id", "trace_id").collect()
        key = ScoreKey(config, group, stated, run.attempt)
        work = GroupWork(run, config, group, models, key, stated, backends)
        if group.teacher is None and config.teacher == "auto" and rows.height:
            run.note(
                f"{rows.height} traces name no teacher, so r_SS alone is scored; --teacher MODEL scores both"
            )
        if config.noise_check:
            check_noise(work, students, rows)
        missing = _find_missing(rows, students, work.key, done)
        for names, trace_ids in missing.items():
            wanted = [student for student in students if student.name in names]
            score_rows(work, wanted, rows.filter(pl.col("trace_id").is_in(trace_ids)))
        already = rows.height - sum(len(ids) for ids in missing.values())
        if already:
            run.note(
                f"{already} traces were scored before; other reward settings are derived by rlt-data reward"
            )
        models.keep_only(students)


def _find_missing(
    rows: pl.DataFrame, students: Sequence[ModelIdentity], key: ScoreKey, done: set[str]
) -> dict[tuple[str, ...], list[str]]:
    """Trace ids by the names of the students that have not scored them."""
    missing: dict[tuple[str, ...], list[str]] = {}
    for trace_id in rows.get_column("trace_id").to_list():
        names = tuple(s.name for s in students if key.make_id(trace_id, s) not in done)
        if names:
            missing.setdefault(names, []).append(trace_id)
    return missing
