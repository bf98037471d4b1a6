"""Generate: teachers explain each question, given its solution; one row a sample in `traces`.

Left out of a generation's identity: the engine, its floating-point type and batching. They change speed
and, by rounding, single draws, not what is sampled from; each row says what made it. Engine options that
change the model, such as quantisation, are part of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any

from rlt_data.engines import Completion, Engine, FailedRequest, open_engine
from rlt_data.errors import UsageError
from rlt_data.formats import ParsedTrace, load_format, parse_teacher_completion
from rlt_data.lake import Lake
from rlt_data.progress import Reporter, Task
from rlt_data.settings import load_settings
from rlt_data.stages.generate.config import GenerateConfig
from rlt_data.stages.generate.overlong import OVERLONG_COUNTS, StudentContext, find_student_context
from rlt_data.stages.generate.requests import (
    Generation,
    Sample,
    check_renderers,
    describe_generation,
    list_missing,
    make_requests,
    reject_sample,
    resolve_teachers,
)
from rlt_data.stages.generate.truncation_limit import TruncationWatch
from rlt_data.stages.runtime.run import StageRun, StageSummary, open_run

__all__ = ["GenerateConfig", "TruncationWatch", "generate"]


def generate(
    lake: Lake, config: GenerateConfig, *, force: bool = False, reporter: Reporter | None = None
) -> StageSummary:
    """Let teachers explain questions, given their solutions; append the traces.

    Each trace's draws depend on the seed, the question and the sample alone. What is already in the lake
    of the same generation (teacher weights, format, sampling, seed) is not made again. Traces are committed
    as they finish, and an interrupted run goes on with what is missing. Several teachers take turns.

    The stage stops itself where more than `max_truncated_share` of a teacher's explanations are cut off: on
    the way, once 32 have finished and the share is above the limit beyond chance (Wilson's 95% lower
    bound), and at the end (by the plain share; below 32 by the bound). Rows that are written stay.

    Where a student is named, explanations whose student text exceeds its context are counted, and kept,
    dropped (to `rejects`) or drawn again, as `overlong` says.

    Raises `UsageError` where nothing can be generated as asked, `StageStoppedError` where too much is cut
    off, `ModelError` and `MissingExtraError` where a teacher cannot be run, `EngineError` where its engine
    or server dies.
    """
    settings = load_settings()
    format = load_format(config.format, settings)
    teachers = resolve_teachers(config, settings)
    student = find_student_context(config, format)
    if lake.table("questions").count() == 0:
        raise UsageError("the lake holds no questions", where=lake.uri, remedy="rlt-data ingest FILE")
    identity: dict[str, Any] = {"format": format.identity_text()}
    if config.is_served:
        identity["renderers"] = [renderer.content_key if renderer else None for _, renderer in teachers]
    if student is not None:
        identity["student"] = student.identity
    if config.model_options:
        identity["model_options"] = config.model_options
    with open_run(
        lake,
        "generate",
        config,
        inputs=("questions",),
        outputs=("traces",),
        models=[teacher for teacher, _ in teachers],
        identity=identity,
        force=force,
        reporter=reporter,
    ) as run:
        if not run.already_done:
            check_renderers(run, config, teachers, format)
            for teacher, renderer in teachers:
                generation = describe_generation(config, teacher, renderer, format, student, run.attempt)
                _run_generation(run, generation, student)
    return run.summary


def _run_generation(run: StageRun, generation: Generation, student: StudentContext | None) -> None:
    """Make what is missing of one generation."""
    config = generation.config
    watch = TruncationWatch(config)
    missing = list_missing(run, generation, watch)
    run.count(rows_in=len(missing))
    if student is not None:
        # That there are none is to be told too.
        run.count(**dict.fromkeys(OVERLONG_COUNTS[config.overlong], 0))
    refusals: list[FailedRequest] = []
    if missing:
        with run.track(f"start the engine of {generation.teacher.name}", None, "engines"):
            engine = open_engine(
                "openai" if config.is_served else config.engine,
                generation.teacher,
                config.make_engine_options(),
            )
        try:
            writer = _TraceWriter(run, generation, engine, watch, student, refusals)
            with run.track(f"generate with {generation.teacher.name}", len(missing), "traces") as task:
                pending: Mapping[str, Sample] = missing
                for draw in range(1 + config.resamples):
                    pending = writer.write(pending, draw, task)
                    if not pending:
                        break
            figures = {"rows_per_second": writer.rows_per_second, **engine.figures}
            if len(config.teacher) > 1:
                run.summary.extra[generation.teacher.name] = figures
            else:
                run.summary.extra |= figures
            for note in engine.notes:
                run.note(note)
            run.flush()
        finally:
            engine.close()
    if refusals and len(refusals) == len(missing) and not watch.completions:
        raise UsageError(
            f"no question fits: {refusals[0].detail}",
            where=f"teacher {generation.teacher.name}",
            remedy="lower max_tokens, or use a teacher with a longer context",
        )
    watch.check_at_end(run.run_id)


class _TraceWriter:
    """Sends requests to an engine and appends what comes back, as it comes."""

    def __init__(
        self,
        run: StageRun,
        generation: Generation,
        engine: Engine,
        watch: TruncationWatch,
        student: StudentContext | None,
        refusals: list[FailedRequest],
    ) -> None:
        self._run = run
        self._generation = generation
        self._engine = engine
        self._watch = watch
        self._student = student
        self._refusals = refusals
        self._answers = 0
        self._began = time.monotonic()

    @property
    def rows_per_second(self) -> float:
        """Answers a second since this writer was made, the engine's start included."""
        return self._answers / max(time.monotonic() - self._began, 1e-6)

    def write(self, samples: Mapping[str, Sample], draw: int, task: Task) -> dict[str, Sample]:
        """Make the traces of `samples`; return those that must be drawn again because they are over-long."""
        engine = self._engine
        requests = make_requests(self._run, self._generation, samples, draw=draw, prefills=engine.prefills)
        sampling, flush = self._generation.sampling, self._run.flush_when_due
        with closing(engine.generate(requests, sampling, on_wait=flush)) as answers:
            return self._take(answers, samples, draw, task)

    def _take(
        self,
        answers: Iterable[Completion | FailedRequest],
        samples: Mapping[str, Sample],
        draw: int,
        task: Task,
    ) -> dict[str, Sample]:
        run, engine = self._run, self._engine
        again: dict[str, Sample] = {}
        for answer in answers:
            sample = samples[answer.key]
            self._answers += 1
            if isinstance(answer, FailedRequest):
                if answer.reason == "over_context":
                    self._refusals.append(answer)
                reject_sample(run, answer.key, sample, answer.reason, answer.detail)
                task.advance(1)
                continue
            parsed = parse_teacher_completion(self._generation.format, answer.text, prefilled=engine.prefills)
            tokens = answer.token_count or 0
            run.count(tokens=tokens)
            if not self._take_overlong(sample, parsed, answer, draw, again):
                row = self._build_row(sample, answer, parsed, draw)
                self._watch.count(truncated=row["truncated"])
                run.count(truncated=int(row["truncated"]))
                run.append("traces", [row])
            task.advance(0 if answer.key in again else 1, tokens=tokens)
            self._watch.check_on_the_way(run.run_id)
        return again

    def _take_overlong(
        self, sample: Sample, parsed: ParsedTrace, answer: Completion, draw: int, again: dict[str, Sample]
    ) -> bool:
        """Count an over-long explanation; reject it or note it to be drawn again, unless it is kept."""
        student, config = self._student, self._generation.config
        if student is None or parsed.think is None:
            return False
        length = student.count_tokens(sample.question, parsed.think, sample.solution)
        if length <= student.limit:
            if draw:
                self._run.count(over_long_draws=draw, over_long_recollected=1)
            return False
        if config.overlong == "keep":
            self._run.count(over_long_kept=1)
            return False
        if config.overlong == "resample" and draw < config.resamples:
            again[answer.key] = sample
            return True
        detail = f"the student text has {length} tokens, the student's context is {student.limit}"
        if draw:
            self._run.count(over_long_draws=draw + 1)
            detail += f"; {draw + 1} draws were all over-long"
        self._run.count(over_long_lost=1)
        reject_sample(self._run, answer.key, sample, "over_student_context", detail)
        return True

    def _build_row(
        self, sample: Sample, completion: Completion, parsed: ParsedTrace, draw: int
    ) -> dict[str, Any]:
        """Build the row of one completion."""
        generation, engine = self._generation, self._engine
        config, teacher = generation.config, generation.teacher
        # Greedy log-probabilities are those of temperature 1: no division took place.
        mode = "raw" if config.temperature == 0 else engine.logprob_mode
        return {
            "trace_id": completion.key,
            "question_id": sample.question_id,
            "generation_id": generation.id,
            "sample_index": sample.sample_index,
            "origin": "generated",
            "teacher": teacher.name,
            "teacher_model": teacher.model,
            "teacher_revision": teacher.revision,
            "engine": engine.version,
            "format": generation.format.name,
            "completion": completion.text,
            "think": parsed.think,
            "trace_solution": parsed.solution,
            "state": parsed.state,
            "finish_reason": completion.finish_reason,
            "truncated": completion.finish_reason == "length",
            "completion_token_ids": completion.token_ids,
            "completion_logprobs": completion.logprobs,
            "logprob_mode": None if completion.logprobs is None else mode,
            "logprob_dtype": engine.dtype,
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.token_count,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "top_k": config.top_k,
            "max_tokens": config.max_tokens,
            "seed": generation.derive_seed(sample, draw),
        }
