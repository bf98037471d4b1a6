"""Generate: a teacher explains each question, given its solution; one row a sample in `traces`.

Left out of a generation's identity: the engine, its floating-point type and batching. They change speed
and, by rounding, single draws, not what is sampled from; each row says what made it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import polars as pl
from pydantic import Field

from rlt_data.engines import (
    Completion,
    Engine,
    EngineName,
    EngineOptions,
    FailedRequest,
    GenerationRequest,
    SamplingParameters,
    derive_sample_seed,
    open_engine,
)
from rlt_data.errors import InputError, StageStoppedError, UsageError
from rlt_data.formats import ConversationFormat, load_format, parse_teacher_completion, render_teacher_prompt
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.models import ModelIdentity, load_tokenizer, resolve_model
from rlt_data.progress import Reporter
from rlt_data.settings import load_settings
from rlt_data.stages.run import StageConfig, StageRun, StageSummary, open_run
from rlt_data.stages.selection import select_rows

# Fewer completions than this say too little about the share that is cut off to stop work on the way.
TRUNCATION_CHECK_AFTER = 32
_CONFIDENCE = 1.96


class GenerateConfig(StageConfig):
    """What to generate. The defaults of sampling are the paper's, but for the length limit."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset(
        {
            "teacher",
            "format",
            "engine",
            "dtype",
            "device",
            "max_batch_tokens",
            "max_batch_rows",
            "engine_options",
            "max_truncated_share",
            "allow_truncated",
        }
    )

    teacher: str = Field(description="The teacher: an alias, a hub id or a local path.")
    samples: int = Field(1, ge=1, description="Explanations a question.")
    format: str = Field("stratos", description="Conversation format: stratos, r1, or one of your own.")
    temperature: float = Field(0.7, ge=0, description="Sampling temperature; 0 is greedy.")
    top_p: float = Field(1.0, gt=0, le=1, description="Nucleus sampling mass; 1 is off.")
    top_k: int = Field(0, ge=0, description="Sample from the k likeliest tokens; 0 is off.")
    max_tokens: int = Field(4096, ge=1, description="Limit on the tokens of an explanation.")
    seed: int = Field(0, description="Seed of the whole generation.")
    where: str | None = Field(None, description="SQL predicate over questions: explain only these.")
    limit: int | None = Field(None, ge=1, description="Explain only the first so many questions.")
    engine: EngineName = Field("auto", description="What runs the teacher.")
    dtype: str = Field("auto", description="Floating-point type: auto, float32, bfloat16 or float16.")
    device: str = Field("auto", description="Where to compute: auto, cpu, cuda, mps.")
    max_batch_tokens: int | None = Field(None, ge=1, description="Tokens held at once; default by memory.")
    max_batch_rows: int | None = Field(None, ge=1, description="Texts written at once; default by device.")
    engine_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the engine itself, passed through."
    )
    max_truncated_share: float = Field(
        0.3, ge=0, le=1, description="Stop where more than this share is cut off by max_tokens."
    )
    allow_truncated: bool = Field(False, description="Go on however many are cut off.")


@dataclass(frozen=True)
class _Sample:
    """One trace to make."""

    question_id: str
    question: str
    solution: str
    sample_index: int


@dataclass(frozen=True)
class _Generation:
    """What all traces of one teacher in one run share."""

    id: str
    config: GenerateConfig
    teacher: ModelIdentity
    format: ConversationFormat
    sampling: SamplingParameters


def generate(
    lake: Lake, config: GenerateConfig, *, force: bool = False, reporter: Reporter | None = None
) -> StageSummary:
    """Let a teacher explain questions, given their solutions; append the traces.

    Each trace's draws depend on the seed, the question and the sample alone. What is already in the lake
    of the same generation (teacher weights, format, sampling, seed) is not made again. Traces are committed
    as they finish, and an interrupted run goes on with what is missing.

    The stage stops itself where more than `max_truncated_share` of the explanations are cut off: on the
    way, once 32 have finished and the share is above the limit beyond chance (Wilson's 95% lower bound),
    and at the end (by the plain share; below 32 by the bound). Rows that are written stay.

    Raises `UsageError` where nothing can be generated as asked, `StageStoppedError` where too much is cut
    off, `ModelError` and `MissingExtraError` where the teacher cannot be run.
    """
    settings = load_settings()
    format = load_format(config.format, settings)
    teacher = resolve_model(config.teacher, role="teacher", settings=settings)
    if lake.table("questions").count() == 0:
        raise UsageError("the lake holds no questions", where=lake.uri, remedy="rlt-data ingest FILE")
    with open_run(
        lake,
        "generate",
        config,
        inputs=("questions",),
        outputs=("traces",),
        models=(teacher,),
        identity={"format": format.identity_text()},
        force=force,
        reporter=reporter,
    ) as run:
        if not run.already_done:
            _generate_all(run, describe_generation(config, teacher, format, run.attempt))
    return run.summary


def describe_generation(
    config: GenerateConfig, teacher: ModelIdentity, format: ConversationFormat, attempt: int
) -> _Generation:
    """Name a generation by everything that its traces are sampled from."""
    sampling = SamplingParameters(
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        max_tokens=config.max_tokens,
        stop=(format.teacher.close,),
    )
    generation_id = hash_content(
        "generation",
        teacher.content_key,
        format.identity_text(),
        [config.temperature, config.top_p, config.top_k, config.max_tokens],
        config.seed,
        attempt,
    )
    return _Generation(generation_id, config, teacher, format, sampling)


def _generate_all(run: StageRun, generation: _Generation) -> None:
    watch = TruncationWatch(generation.config)
    missing = _list_missing(run, generation, watch)
    run.count(rows_in=len(missing))
    refusals: list[FailedRequest] = []
    if missing:
        engine = _open_engine(generation)
        try:
            _run_engine(run, generation, engine, missing, watch, refusals)
        finally:
            engine.close()
    if refusals and len(refusals) == len(missing) and not watch.completions:
        raise UsageError(
            f"no question fits: {refusals[0].detail}",
            where=f"teacher {generation.config.teacher}",
            remedy="lower max_tokens, or use a teacher with a longer context",
        )
    watch.check_at_end(run.run_id)


def _list_missing(run: StageRun, generation: _Generation, watch: TruncationWatch) -> dict[str, _Sample]:
    """List the traces to make, by trace_id: all of the generation less what is committed or rejected."""
    config = generation.config
    questions = (
        select_rows(run, "questions", config.where)
        .sort("dataset", "source", "source_row", "question_id")
        .select("question_id", "question", "solution")
    )
    if config.limit is not None:
        questions = questions.head(config.limit)
    wanted: dict[str, _Sample] = {}
    for question_id, question, solution in questions.collect().iter_rows():
        for index in range(config.samples):
            trace_id = hash_content(question_id, generation.id, index)
            wanted[trace_id] = _Sample(question_id, question, solution, index)
    if not wanted:
        raise UsageError("the selection keeps no question", where=f"where = {config.where!r}")
    made = (
        run.written("traces")
        .filter(pl.col("generation_id") == generation.id)
        .select("trace_id", "truncated", pl.col("run_id") == run.run_id)
        .collect()
    )
    rejected = run.written("rejects").filter(pl.col("run_id") == run.run_id).select("key").collect()
    elsewhere = 0
    for trace_id, truncated, mine in made.iter_rows():
        if wanted.pop(trace_id, None) is not None:
            elsewhere += not mine
            watch.count(truncated=truncated)
    for trace_id in rejected.get_column("key"):
        wanted.pop(trace_id, None)
    if elsewhere:
        run.note(f"{elsewhere} traces of this generation were in the lake already")
    return wanted


def _open_engine(generation: _Generation) -> Engine:
    config = generation.config
    options = EngineOptions(
        dtype=config.dtype,
        device=config.device,
        max_batch_tokens=config.max_batch_tokens,
        max_batch_rows=config.max_batch_rows,
        extra=config.engine_options,
    )
    return open_engine(config.engine, generation.teacher, options)


def _run_engine(
    run: StageRun,
    generation: _Generation,
    engine: Engine,
    missing: dict[str, _Sample],
    watch: TruncationWatch,
    refusals: list[FailedRequest],
) -> None:
    """Send every missing trace to the engine and append what comes back, as it comes."""
    requests = _make_requests(run, generation, missing)
    with run.track(f"generate with {generation.config.teacher}", len(missing), "traces") as task:
        for answer in engine.generate(requests, generation.sampling):
            sample = missing[answer.key]
            if isinstance(answer, FailedRequest):
                if answer.reason == "over_context":
                    refusals.append(answer)
                _reject(run, answer.key, sample, answer.reason, answer.detail)
                task.advance(1)
                continue
            row = _build_row(generation, engine, sample, answer)
            watch.count(truncated=row["truncated"])
            tokens = row["completion_tokens"] or 0
            run.count(tokens=tokens, truncated=int(row["truncated"]))
            run.append("traces", [row])
            task.advance(1, tokens=tokens)
            watch.check_on_the_way(run.run_id)


def _make_requests(
    run: StageRun, generation: _Generation, missing: dict[str, _Sample]
) -> Iterator[GenerationRequest]:
    """Render the prompt of each missing trace; a text that cannot be rendered is rejected."""
    tokenizer = load_tokenizer(generation.teacher)
    rendered: tuple[str, str] = ("", "")
    for trace_id, sample in missing.items():
        if rendered[0] != sample.question_id:
            try:
                prompt = render_teacher_prompt(
                    generation.format, tokenizer, sample.question, sample.solution
                ).text
            except InputError as error:
                _reject(run, trace_id, sample, "invalid_text", error.what)
                continue
            rendered = (sample.question_id, prompt)
        seed = derive_sample_seed(generation.config.seed, sample.question_id, sample.sample_index)
        yield GenerationRequest(trace_id, rendered[1], seed)


def _reject(run: StageRun, trace_id: str, sample: _Sample, reason: str, detail: str) -> None:
    content = json.dumps({"question_id": sample.question_id, "sample_index": sample.sample_index})
    run.reject(source="questions", key=trace_id, reason=reason, detail=detail, content=content)


def _build_row(
    generation: _Generation, engine: Engine, sample: _Sample, completion: Completion
) -> dict[str, Any]:
    """Build the row of one completion."""
    config, teacher = generation.config, generation.teacher
    parsed = parse_teacher_completion(generation.format, completion.text)
    # Greedy log-probabilities are those of temperature 1: no division took place.
    mode = "raw" if config.temperature == 0 else engine.logprob_mode
    return {
        "trace_id": completion.key,
        "question_id": sample.question_id,
        "generation_id": generation.id,
        "sample_index": sample.sample_index,
        "origin": "generated",
        "teacher": config.teacher,
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
        "seed": derive_sample_seed(config.seed, sample.question_id, sample.sample_index),
    }


class TruncationWatch:
    """Counts what is cut off, and stops the stage where it is too much; see `generate`."""

    def __init__(self, config: GenerateConfig) -> None:
        self.completions = 0
        self.truncated = 0
        self._config = config

    def count(self, *, truncated: bool) -> None:
        """Count one completion."""
        self.completions += 1
        self.truncated += truncated

    def check_on_the_way(self, run_id: str) -> None:
        """Stop where the share is above the limit beyond chance. Raises `StageStoppedError`."""
        if self.completions >= TRUNCATION_CHECK_AFTER and self.truncated:
            self._stop_above(run_id, self._bound_share())

    def check_at_end(self, run_id: str) -> None:
        """Stop where the share is above the limit; few completions must be so beyond chance."""
        if self.completions:
            few = self.completions < TRUNCATION_CHECK_AFTER
            self._stop_above(run_id, self._bound_share() if few else self.truncated / self.completions)

    def _bound_share(self) -> float:
        """Compute the lower bound of Wilson's 95% interval of the truncated share."""
        n, z = self.completions, _CONFIDENCE
        share = self.truncated / n
        centre = share + z * z / (2 * n)
        spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return (centre - spread) / (1 + z * z / n)

    def _stop_above(self, run_id: str, share: float) -> None:
        config = self._config
        if config.allow_truncated or share <= config.max_truncated_share:
            return
        raise StageStoppedError(
            f"{self.truncated} of {self.completions} explanations ({self.truncated / self.completions:.0%}) "
            f"were cut off at max_tokens {config.max_tokens}; the limit is {config.max_truncated_share:.0%}",
            where=f"run {run_id}; the rows that are written stay",
            remedy="raise max_tokens; or go on with allow_truncated, or a higher max_truncated_share",
        )
