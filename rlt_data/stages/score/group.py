"""Scoring the traces of one teacher and one format: models loaded, texts scored, rows committed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from rlt_data.bounds import parse_memory
from rlt_data.errors import StageStoppedError
from rlt_data.formats import load_format
from rlt_data.models import ModelIdentity, load_tokenizer
from rlt_data.progress import Task
from rlt_data.reward.backends.opening import BACKENDS, BackendName
from rlt_data.stages.runtime.run import StageRun
from rlt_data.stages.score.config import ScoreConfig
from rlt_data.stages.score.progress import ScoredTraces
from rlt_data.stages.score.rows import (
    ScoreKey,
    append_scores,
    make_request,
    make_row,
    read_sampled,
    reject_trace,
)
from rlt_data.stages.score.trace_groups import ScoreGroup

if TYPE_CHECKING:
    from rlt_data.reward.backends.cache import BackendCache
    from rlt_data.reward.backends.prompt_scorer import PromptScorer
    from rlt_data.reward.scoring.loading import ModelCache
    from rlt_data.reward.scoring.scorer import FailedScore, Scorer, TokenScores
    from rlt_data.reward.scoring.texts import ScoreRequest

COMMIT_ROWS = 512


@dataclass(frozen=True)
class GroupWork:
    """The run, configuration and models with which one group is scored."""

    run: StageRun
    config: ScoreConfig
    group: ScoreGroup
    models: ModelCache
    key: ScoreKey
    dtype: str
    progress: ScoredTraces
    backends: BackendCache | None = None
    """What computes log-probabilities instead of our own forward passes; see `stages.score.backends`."""

    @property
    def teacher_backend(self) -> BackendName:
        """Where the teacher runs: in this process if only students are served."""
        backend = self.config.backend
        return "torch" if BACKENDS[backend].served else backend

    def open_scorer(
        self, students: Sequence[ModelIdentity], *, with_teacher: bool = True, **options: Any
    ) -> Scorer | PromptScorer:
        """Load the models and make their scorer; notes about them go to the summary."""
        config, teacher = self.config, self.group.teacher if with_teacher else None
        temperature, teacher_temperature = config.model_temperatures
        if self.backends is not None:
            prompt_scorer = self.backends.open_scorer(
                load_format(self.group.format),
                [(student, temperature) for student in students],
                (teacher, teacher_temperature) if teacher is not None else None,
            )
            self._note(prompt_scorer.notes)
            return prompt_scorer
        from rlt_data.reward.scoring.scorer import Scorer

        memory = parse_memory(config.memory) if config.memory is not None else None
        sizes = {"memory": memory, "pack_tokens": config.pack_tokens, "batch_tokens": config.batch_tokens}
        scorer = Scorer(
            load_format(self.group.format),
            [self.models.load(student, temperature) for student in students],
            self.models.load(teacher, teacher_temperature) if teacher is not None else None,
            exact=config.stores_divergences,
            **(sizes | options),
        )
        self._note(scorer.notes)
        return scorer

    def _note(self, notes: Sequence[str]) -> None:
        for note in notes:
            self.run.note(note)


def score_rows(work: GroupWork, students: Sequence[ModelIdentity], rows: pl.DataFrame) -> None:
    """Score traces (joined with their questions, sorted by question) with `students`, and commit the rows."""
    from rlt_data.reward.reuse import score_reusable, split_reusable
    from rlt_data.reward.scoring.scorer import Scorer
    from rlt_data.reward.scoring.texts import FailedText

    by_id = {row["trace_id"]: row for row in rows.iter_rows(named=True)}
    requests: list[ScoreRequest] = []
    for row in by_id.values():
        request = make_request(row)
        if isinstance(request, FailedText):
            work.run.count(rows_in=work.progress.count(request.key))
            reject_trace(work.run, request)
        else:
            requests.append(request)
    reusable = _find_reusable(work, students, requests, by_id)
    reused, others = split_reusable(requests, reusable)
    names = ", ".join(student.name for student in students)
    with work.run.track(f"score with {names}", len(requests), "traces") as task:
        if reused:
            _check_gap(work, students, reused, reusable)
            scorer = work.open_scorer(students, with_teacher=False)
            results = score_reusable(scorer, reused, reusable)
            _commit(work, students, by_id, results, task, teacher_source="engine")
        if others:
            scorer = work.open_scorer(students)
            if isinstance(scorer, Scorer) and len(others) >= work.config.estimate_from:
                _report_forecast(work.run, scorer, others)
            _commit(work, students, by_id, scorer.score(others), task, teacher_source=work.teacher_backend)


def _commit(
    work: GroupWork,
    students: Sequence[ModelIdentity],
    traces: Mapping[str, Mapping[str, Any]],
    results: Iterator[TokenScores | FailedScore],
    task: Task,
    *,
    teacher_source: str,
) -> None:
    from rlt_data.reward.scoring.scorer import FailedScore

    run, config, teacher = work.run, work.config, work.group.teacher
    settings = config.reward
    if teacher is None:
        # Without teacher log-probabilities the reward is r_ss alone, and its row records that.
        settings = settings.model_copy(update={"lambda_kl": 0.0})
    by_name = {student.name: student for student in students}
    buffer: list[dict[str, Any]] = []
    left = {trace_id: len(students) for trace_id in traces}
    for result in results:
        key = result.failure.key if isinstance(result, FailedScore) else result.key
        left[key] -= 1
        if isinstance(result, FailedScore):
            # What was counted for buffered rows must not be committed with this reject.
            append_scores(run, buffer, settings)
            buffer = []
            run.count(rows_in=work.progress.count(key))
            reject_trace(run, result.failure, result.student)
            task.advance(int(not left[key]))
            continue
        trace, student = traces[result.key], by_name[result.student]
        first = student is students[0]
        buffer.append(
            make_row(
                result,
                trace,
                key=work.key,
                config=config,
                group=work.group,
                student=student,
                dtype=work.dtype,
                teacher_source=teacher_source,
            )
        )
        tokens = result.student_tokens + (result.teacher_tokens or 0 if first else 0)
        run.count(rows_in=work.progress.count(key), tokens=tokens, truncated=int(trace["truncated"]))
        if teacher_source == "engine" and first:
            run.count(teacher_logprobs_reused=1)
        task.advance(int(not left[key]), tokens)
        if len(buffer) >= COMMIT_ROWS:
            append_scores(run, buffer, settings)
            buffer = []
    append_scores(run, buffer, settings)


def _find_reusable(
    work: GroupWork,
    students: Sequence[ModelIdentity],
    requests: Sequence[ScoreRequest],
    traces: Mapping[str, Mapping[str, Any]],
) -> dict[str, list[float]]:
    """The teacher's log-probabilities by trace, where the engine stored the very same quantity."""
    from rlt_data.reward.reuse import find_reusable

    teacher, config = work.group.teacher, work.config
    if teacher is None or config.rescore_teacher or config.stores_divergences:
        return {}
    sampled = {
        key: tokens
        for key, row in traces.items()
        if _samples_teacher(row, teacher, config.model_temperatures[1])
        and (tokens := read_sampled(row)) is not None
    }
    if not sampled:
        return {}
    return find_reusable(
        load_format(work.group.format),
        load_tokenizer(teacher),
        [load_tokenizer(student) for student in students],
        requests,
        sampled,
    )


def _samples_teacher(row: Mapping[str, Any], teacher: ModelIdentity, temperature: float) -> bool:
    """Whether a trace's log-probabilities are of these weights, at this temperature, over all tokens."""
    return bool(
        row["logprob_mode"] == "processed"
        # An engine names quantization here: those are not quite these weights.
        and "+" not in (row["logprob_dtype"] or "")
        and row["teacher_revision"] is not None
        and row["teacher_revision"] == teacher.revision
        and row["temperature"] == temperature
        and row["top_p"] in (None, 1.0)
        and row["top_k"] in (None, 0, -1)
    )


def _check_gap(
    work: GroupWork,
    students: Sequence[ModelIdentity],
    requests: Sequence[ScoreRequest],
    reusable: Mapping[str, list[float]],
) -> None:
    """Compare the engine's log-probabilities with torch's on a few rows. Raises `StageStoppedError`."""
    from rlt_data.reward.scoring.scorer import TokenScores

    count = min(work.config.gap_rows, len(requests))
    if not count:
        return
    sample = [requests[index * len(requests) // count] for index in range(count)]
    gaps: list[float] = []
    for result in work.open_scorer(students[:1]).score(sample):
        if isinstance(result, TokenScores) and result.think_teacher is not None:
            pairs = zip(reusable[result.key], result.think_teacher, strict=True)
            gaps.extend(abs(stored - computed) for stored, computed in pairs)
    if not gaps:
        return
    mean, largest = sum(gaps) / len(gaps), max(gaps)
    difference = f"{mean:.2g} on average, {largest:.2g} at most (nats per token, {count} traces)"
    scored_by = work.teacher_backend
    name = work.group.teacher.name if work.group.teacher is not None else ""
    work.run.note(
        f"log-probabilities of teacher {name} are those that its engine stored; they differ from {scored_by} "
        f"by {difference}"
    )
    work.run.summary.extra["engine_gap"] = _join_gaps(
        work.run.summary.extra.get("engine_gap"), {"rows": count, "mean": mean, "largest": largest}
    )
    # Also where it is NaN.
    if not mean <= work.config.max_gap:
        raise StageStoppedError(
            f"the log-probabilities stored with the traces differ from those of {scored_by} by {difference}",
            where=f"teacher {name}",
            remedy="score with --rescore-teacher, or allow the gap with --max-gap",
        )


def _join_gaps(one: Mapping[str, float] | None, other: Mapping[str, float]) -> Mapping[str, float]:
    """Join the gaps of two groups of traces; `mean` is weighted by their rows."""
    if one is None:
        return other
    rows = one["rows"] + other["rows"]
    return {
        "rows": rows,
        "mean": (one["mean"] * one["rows"] + other["mean"] * other["rows"]) / rows,
        "largest": max(one["largest"], other["largest"]),
    }


def _report_forecast(run: StageRun, scorer: Scorer, requests: Sequence[ScoreRequest]) -> None:
    from rlt_data.reward.forecast import forecast_run

    forecast = forecast_run(scorer, requests)
    run.reporter.message(f"forecast: {forecast.describe()}")
    run.summary.extra["estimate"] = {
        "seconds": forecast.seconds,
        "peak_bytes": forecast.peak_bytes,
        "working_bytes": forecast.working_bytes,
    }
