"""Write completions to `traces`, or to `rejects`, as they finish."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import Any, assert_never

from rlt_data.engines import Completion, Engine, FailedRequest, SamplingParameters
from rlt_data.formats import ParsedTrace, parse_teacher_completion
from rlt_data.models import ModelIdentity
from rlt_data.progress import Task
from rlt_data.stages.generate.overlong import StudentContext
from rlt_data.stages.generate.requests import Generation, Sample, make_requests, reject_sample
from rlt_data.stages.generate.truncation_limit import TruncationLimit
from rlt_data.stages.runtime.run import StageRun


class TraceWriter:
    """Sends requests to an engine and appends what comes back, as it comes."""

    def __init__(
        self,
        run: StageRun,
        generation: Generation,
        engine: Engine,
        limit: TruncationLimit,
        student: StudentContext | None,
        refusals: list[FailedRequest],
    ) -> None:
        self._run = run
        self._generation = generation
        self._engine = engine
        self._limit = limit
        self._student = student
        self._refusals = refusals
        self._answers = 0
        self._began = time.monotonic()

    @property
    def rows_per_second(self) -> float:
        """Answers a second since this writer was made, the engine's start included."""
        return self._answers / max(time.monotonic() - self._began, 1e-6)

    def write(self, samples: Mapping[str, Sample], draw: int, task: Task) -> dict[str, Sample]:
        """Generate the traces of `samples`; return those to be sampled again because they are over-long."""
        engine = self._engine
        requests = make_requests(self._run, self._generation, samples, draw=draw, prefills=engine.prefills)
        sampling, flush = self._generation.sampling, self._run.flush_when_due
        with closing(engine.generate(requests, sampling, on_wait=flush)) as answers:
            return self._write_answers(answers, samples, draw, task)

    def _write_answers(
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
            if not self._handle_overlong(sample, parsed, answer, draw, again):
                row = self._build_row(sample, answer, parsed, draw)
                most = self._generation.config.max_tokens
                by_context = row["truncated"] and tokens < most if answer.token_count is not None else False
                self._limit.count(truncated=row["truncated"], by_context=by_context)
                run.count(rows_in=1, truncated=int(row["truncated"]))
                run.append("traces", [row])
            task.advance(0 if answer.key in again else 1, tokens=tokens)
            self._limit.check_during_run(run.run_id)
        return again

    def _handle_overlong(
        self, sample: Sample, parsed: ParsedTrace, answer: Completion, draw: int, again: dict[str, Sample]
    ) -> bool:
        """Count an over-long explanation; return whether it is rejected or put into `again`."""
        student, config = self._student, self._generation.config
        if student is None or parsed.think is None:
            return False
        length = student.count_tokens(sample.question, parsed.think, sample.solution)
        if length <= student.limit:
            if draw:
                self._run.count(over_long_draws=draw, over_long_recollected=1)
            return False
        match config.over_context:
            case "keep":
                self._run.count(over_long_kept=1)
                return False
            case "resample":
                if draw < config.resamples:
                    again[answer.key] = sample
                    return True
            case "drop":
                pass
            case never:
                assert_never(never)
        detail = f"the student text has {length} tokens, the student's context is {student.limit}"
        if draw:
            self._run.count(over_long_draws=draw + 1)
            detail += f"; all {draw + 1} samples were over-long"
        self._run.count(over_long_lost=1)
        reject_sample(self._run, answer.key, sample, "over_student_context", detail)
        return True

    def _build_row(
        self, sample: Sample, completion: Completion, parsed: ParsedTrace, draw: int
    ) -> dict[str, Any]:
        """Build the row of one completion."""
        generation, engine = self._generation, self._engine
        # Greedy log-probabilities are those of temperature 1: no division took place.
        mode = "raw" if generation.config.temperature == 0 else engine.logprob_mode
        return {
            **describe_completion(generation.teacher.model, engine, generation.sampling, completion),
            "question_id": sample.question_id,
            "generation_id": generation.id,
            "sample_index": sample.sample_index,
            "origin": "generated",
            "format": generation.format.name,
            "think": parsed.think,
            "trace_solution": parsed.solution,
            "state": parsed.state,
            "completion_token_ids": completion.token_ids,
            "completion_logprobs": completion.logprobs,
            "logprob_mode": None if completion.logprobs is None else mode,
            "logprob_dtype": engine.dtype,
            "seed": generation.derive_seed(sample, draw),
        }


def describe_completion(
    model: ModelIdentity, engine: Engine, sampling: SamplingParameters, completion: Completion
) -> dict[str, Any]:
    """Return the columns of a trace that say which model wrote it, how, and what it wrote."""
    return {
        "trace_id": completion.key,
        "teacher": model.name,
        "teacher_model": model.model,
        "teacher_revision": model.revision,
        "engine": engine.version,
        "completion": completion.text,
        "finish_reason": completion.finish_reason,
        "truncated": completion.finish_reason == "length",
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.token_count,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_tokens": sampling.max_tokens,
    }
