"""Score: students read the traces; per-token log-probabilities are stored, rewards derived from them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import polars as pl
from pydantic import Field, model_validator

from rlt_data.formats import load_format
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.models import ModelIdentity, choose_device, choose_dtype, resolve_model
from rlt_data.progress import Reporter, Task
from rlt_data.reward.derive import derive_reward
from rlt_data.reward.settings import RewardSettings
from rlt_data.stages.run import StageConfig, StageRun, StageSummary, open_run
from rlt_data.stages.score_plan import ScoreGroup, list_groups
from rlt_data.stages.selection import keep_rows, select_rows

COMMIT_ROWS = 512


class ScoreConfig(StageConfig):
    """What `rlt-data score` does."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"pack_tokens", "batch_tokens"})

    students: tuple[str, ...] = Field(min_length=1, description="Student that reads the traces; repeatable.")
    teacher: str = Field(
        "auto",
        description="Whose log-probabilities stand on the teacher's side: auto (whoever wrote the trace; an "
        "imported trace has none), none (r_SS alone), or a model.",
    )
    where: str | None = Field(None, description="SQL predicate over traces; others are left alone.")
    format: str | None = Field(
        None, description="Conversation format; unset takes the trace's own, stratos where it names none."
    )
    temperature: float = Field(0.7, gt=0, description="The students' logits are divided by this.")
    teacher_temperature: float | None = Field(
        None, gt=0, description="The teacher's logits are divided by this; unset takes the students'."
    )
    exact: bool = Field(
        False,
        description="Also store the exact divergence over the vocabulary, which ranking prefers. "
        "Implied by the estimator full.",
    )
    reward: RewardSettings = Field(default_factory=RewardSettings)
    dtype: str = Field("auto", description="auto (float32 on a CPU), float32, bfloat16 or float16.")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 and so on.")
    pack_tokens: int = Field(2048, ge=1, description="Tokens of one forward pass.")
    batch_tokens: int = Field(65536, ge=1, description="Tokens of the texts that are prepared together.")

    @model_validator(mode="after")
    def _check(self) -> ScoreConfig:
        if len(set(self.students)) < len(self.students):
            raise ValueError("a student is named twice")
        if self.teacher == "none" and self.stores_divergences:
            raise ValueError("the exact divergence needs a teacher: drop --exact, or name a teacher")
        return self

    @property
    def stores_divergences(self) -> bool:
        """Whether the exact divergence is computed."""
        return self.exact or self.reward.estimator == "full"


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
    model cannot be had or the teacher's weights are no longer those that wrote the traces.
    """
    students = [resolve_model(name, role="student") for name in config.students]
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
        identity={"dtype": dtype, "formats": formats},
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
    from rlt_data.reward.loading import ModelShelf

    done = set(run.written("scores").select("score_id").collect().get_column("score_id").to_list())
    shelf = ModelShelf(dtype=dtype, device=config.device)
    questions = run.read("questions").select("question_id", "question", "solution")
    for group in groups:
        traces = group.filter(select_rows(run, "traces", config.where))
        rows = traces.join(questions, on="question_id", how="left").sort("question_id", "trace_id").collect()
        key = _ScoreKey(config, group, dtype, run.attempt)
        if group.teacher is None and config.teacher == "auto" and rows.height:
            run.note(
                f"{rows.height} traces name no teacher, so r_SS alone is scored; --teacher MODEL scores both"
            )
        missing = _find_missing(rows, students, key, done)
        for names, trace_ids in missing.items():
            wanted = [student for student in students if student.name in names]
            part = rows.filter(pl.col("trace_id").is_in(trace_ids))
            with run.track(f"scoring with {', '.join(names)}", part.height) as task:
                _score_part(run, config, shelf, group, wanted, part, key, task)
        already = rows.height - sum(len(ids) for ids in missing.values())
        if already:
            run.note(
                f"{already} traces were scored before; other reward settings are derived by rlt-data reward"
            )
        shelf.keep_only(students)


class _ScoreKey:
    """The identity of one score, short of trace and student."""

    def __init__(self, config: ScoreConfig, group: ScoreGroup, dtype: str, attempt: int) -> None:
        self.temperature_student = config.temperature
        self.temperature_teacher = config.teacher_temperature or config.temperature
        self.dtype = dtype
        self._parts = [
            load_format(group.format).identity_text(),
            group.teacher.content_key if group.teacher is not None else None,
            self.temperature_student,
            self.temperature_teacher if group.teacher is not None else None,
            dtype,
            "exact" if config.stores_divergences and group.teacher is not None else "sampled",
            attempt,
        ]

    def make_id(self, trace_id: str, student: ModelIdentity) -> str:
        return hash_content("score", trace_id, student.content_key, *self._parts)


def _find_missing(
    rows: pl.DataFrame, students: Sequence[ModelIdentity], key: _ScoreKey, done: set[str]
) -> dict[tuple[str, ...], list[str]]:
    """Trace ids by the names of the students that have not scored them."""
    missing: dict[tuple[str, ...], list[str]] = {}
    for trace_id in rows.get_column("trace_id").to_list():
        names = tuple(s.name for s in students if key.make_id(trace_id, s) not in done)
        if names:
            missing.setdefault(names, []).append(trace_id)
    return missing


def _score_part(
    run: StageRun,
    config: ScoreConfig,
    shelf: Any,
    group: ScoreGroup,
    students: Sequence[ModelIdentity],
    rows: pl.DataFrame,
    key: _ScoreKey,
    task: Task,
) -> None:
    from rlt_data.reward.scorer import FailedScore, Scorer

    teacher = group.teacher
    scorer = Scorer(
        load_format(group.format),
        [shelf.take(student, key.temperature_student) for student in students],
        shelf.take(teacher, key.temperature_teacher) if teacher is not None else None,
        exact=config.stores_divergences,
        pack_tokens=config.pack_tokens,
        batch_tokens=config.batch_tokens,
    )
    settings = config.reward
    if teacher is None:
        settings = settings.model_copy(update={"lambda_kl": 0.0})
    by_id = {row["trace_id"]: row for row in rows.iter_rows(named=True)}
    by_name = {student.name: student for student in students}
    buffer: list[dict[str, Any]] = []
    for result in scorer.score(_make_requests(run, by_id.values())):
        if isinstance(result, FailedScore):
            reject_text(run, result, task)
            continue
        trace = by_id[result.key]
        student = by_name[result.student]
        row = describe_models(student, teacher) | result.as_row()
        row |= {
            "score_id": key.make_id(result.key, student),
            "trace_id": result.key,
            "question_id": trace["question_id"],
            "format": group.format,
            "backend": "torch",
            "dtype": key.dtype,
            "temperature_student": key.temperature_student,
            "temperature_teacher": key.temperature_teacher if teacher is not None else None,
        }
        buffer.append(row)
        first = student is students[0]
        tokens = result.student_tokens + (result.teacher_tokens or 0 if first else 0)
        run.count(rows_in=int(first), tokens=tokens, truncated=int(trace["truncated"]))
        task.advance(int(first), tokens)
        if len(buffer) >= COMMIT_ROWS:
            append_scores(run, buffer, settings)
            buffer = []
    append_scores(run, buffer, settings)


def _make_requests(run: StageRun, rows: Iterable[Mapping[str, Any]]) -> Iterator[Any]:
    from rlt_data.reward.texts import ScoreRequest

    for row in rows:
        if row["question"] is None:
            run.count(rows_in=1)
            run.reject(
                source="traces",
                reason="unknown_question",
                detail=f"question {row['question_id']} is not in the lake",
                key=row["trace_id"],
            )
        elif row["think"] is None:
            run.count(rows_in=1)
            run.reject(
                source="traces",
                reason="no_explanation",
                detail=f"no explanation can be told from the rest of the trace (state {row['state']})",
                key=row["trace_id"],
            )
        else:
            closed = row["state"] != "missing_close"
            yield ScoreRequest(row["trace_id"], row["question"], row["solution"], row["think"], closed)


def reject_text(run: StageRun, result: Any, task: Task) -> None:
    """Put a text that cannot be scored into `rejects`."""
    failure = result.failure
    run.count(rows_in=1)
    run.reject(
        source="traces",
        reason=failure.reason,
        detail=failure.detail,
        key=failure.key,
        content=json.dumps({"trace_id": failure.key, "student": result.student}, ensure_ascii=False),
    )
    task.advance(1)


def describe_models(student: ModelIdentity, teacher: ModelIdentity | None) -> dict[str, Any]:
    """The columns of `scores` that say whose numbers they are."""
    return {
        "student": student.name,
        "student_model": student.model,
        "student_revision": student.revision,
        "teacher": teacher.name if teacher is not None else None,
        "teacher_model": teacher.model if teacher is not None else None,
        "teacher_revision": teacher.revision if teacher is not None else None,
    }


def append_scores(run: StageRun, rows: list[dict[str, Any]], settings: RewardSettings) -> None:
    """Append score rows with the reward derived under `settings`."""
    if not rows:
        return
    arrow = run.lake.table("scores").schema.arrow
    names = [name for name in arrow.names if name in rows[0]]
    schema = pl.DataFrame(arrow.empty_table()).select(names).schema
    frame = pl.DataFrame(rows, schema=schema)
    run.append("scores", frame.with_columns(derive_reward(settings)))
