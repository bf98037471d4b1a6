"""Generations, the traces of them that are missing, and the requests to the teachers for these traces."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from rlt_data.engines import GenerationRequest, SamplingParameters, derive_sample_seed
from rlt_data.errors import InputError, UsageError
from rlt_data.formats import (
    ConversationFormat,
    build_teacher_messages,
    check_template,
    render_teacher_prompt,
)
from rlt_data.hashing import hash_content
from rlt_data.models import load_tokenizer
from rlt_data.stages.generate.config import GenerateConfig
from rlt_data.stages.generate.overlong import StudentContext
from rlt_data.stages.generate.truncation_limit import TruncationLimit
from rlt_data.stages.runtime.engine_models import EngineModel, identify_engine_model
from rlt_data.stages.runtime.run import StageRun
from rlt_data.stages.runtime.selection import select_rows


@dataclass(frozen=True)
class Sample:
    """One trace to generate."""

    question_id: str
    question: str
    solution: str
    sample_index: int


@dataclass(frozen=True)
class Generation:
    """What all traces of one teacher in one run share."""

    id: str
    config: GenerateConfig
    teacher: EngineModel
    format: ConversationFormat
    sampling: SamplingParameters

    def derive_seed(self, sample: Sample, draw: int) -> int:
        """Derive the seed of a sample's first draw (0), or of one made because it was over-long."""
        seed = derive_sample_seed(self.config.seed, sample.question_id, sample.sample_index)
        return derive_sample_seed(seed, "drawn again", draw) if draw else seed


def describe_generation(
    config: GenerateConfig,
    teacher: EngineModel,
    format: ConversationFormat,
    student: StudentContext | None,
    attempt: int,
) -> Generation:
    """Identify a generation by everything that determines the distribution of its traces.

    The fields of the first scheme are hashed by position, all other row fields by name.
    """
    content_key, *parts = identify_engine_model(config, teacher)
    parts = [
        content_key,
        format.identity_text(),
        [config.temperature, config.top_p, config.top_k, config.max_tokens],
        config.seed,
        attempt,
        *parts,
    ]
    if config.over_context == "resample" and student is not None:
        parts.append(["resample", student.identity, config.resamples])
    by_position = {"temperature", "top_p", "top_k", "max_tokens", "seed"}
    if others := {k: v for k, v in config.list_row_identity().items() if k not in by_position}:
        parts.append(["options", others])
    sampling = SamplingParameters(
        temperature=config.temperature,
        top_p=config.top_p,
        top_k=config.top_k,
        max_tokens=config.max_tokens,
        stop=(format.teacher.close,),
    )
    return Generation(hash_content("generation", *parts), config, teacher, format, sampling)


def list_missing(run: StageRun, generation: Generation, limit: TruncationLimit) -> dict[str, Sample]:
    """List the traces to generate, by trace_id: all of the generation but those committed or rejected.

    Raises `UsageError` where the selection contains no question.
    """
    config = generation.config
    questions = (
        select_rows(run, "questions", config.where)
        .sort("dataset", "source", "source_row", "question_id")
        .select("question_id", "question", "solution")
    )
    if config.limit is not None:
        questions = questions.head(config.limit)
    wanted: dict[str, Sample] = {}
    for question_id, question, solution in questions.collect().iter_rows():
        for index in range(config.samples):
            trace_id = hash_content(question_id, generation.id, index)
            wanted[trace_id] = Sample(question_id, question, solution, index)
    if not wanted:
        raise UsageError("the selection contains no question", where=f"where = {config.where!r}")
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
            limit.count(truncated=truncated)
    for trace_id in rejected.get_column("key"):
        wanted.pop(trace_id, None)
    if elsewhere:
        run.note(f"{elsewhere} traces of this generation were already in the lake")
    return wanted


def make_requests(
    run: StageRun, generation: Generation, samples: Mapping[str, Sample], *, draw: int, prefills: bool
) -> Iterator[GenerationRequest]:
    """Render the prompt of each sample; a text that cannot be rendered is rejected.

    Raises `ModelError` where prompts must be rendered and there is no chat template.
    """
    tokenizer: Any = generation.teacher.load_tokenizer("teacher") if prefills else None
    rendered_for = ""
    prompt = ""
    messages: tuple[tuple[str, str], ...] = ()
    for trace_id, sample in samples.items():
        if rendered_for != sample.question_id:
            try:
                if prefills:
                    prompt = render_teacher_prompt(
                        generation.format, tokenizer, sample.question, sample.solution
                    ).text
                else:
                    messages = instruct_teacher(generation.format, sample.question, sample.solution)
            except InputError as error:
                reject_sample(run, trace_id, sample, "invalid_text", error.what)
                continue
            rendered_for = sample.question_id
        yield GenerationRequest(trace_id, prompt, generation.derive_seed(sample, draw), messages)


def check_renderers(
    run: StageRun, config: GenerateConfig, teachers: Sequence[EngineModel], format: ConversationFormat
) -> None:
    """Check the chat template of every teacher before the first one generates; note what it does.

    Raises `ModelError` where prompts cannot be rendered through one.
    """
    if config.uses_chat:
        return
    for teacher in teachers:
        if teacher.renderer is not None:
            name = teacher.model.name
            for note in check_template(format, load_tokenizer(teacher.renderer), "teacher", name=name):
                run.note(note)


def instruct_teacher(format: ConversationFormat, question: str, solution: str) -> tuple[tuple[str, str], ...]:
    """Build messages for a server that cannot continue a turn: its beginning becomes an instruction."""
    *before, user, beginning = build_teacher_messages(format, question, solution)
    instruction = (
        f"{user['content']}\n\nBegin your answer with exactly the following text, then go on from there, and "
        f"end it with {format.teacher.close}:\n\n{beginning['content']}"
    )
    return (*((message["role"], message["content"]) for message in before), (user["role"], instruction))


def reject_sample(run: StageRun, trace_id: str, sample: Sample, reason: str, detail: str) -> None:
    """Write a sample that cannot become a trace to `rejects`."""
    run.count(rows_in=1)
    content = json.dumps({"question_id": sample.question_id, "sample_index": sample.sample_index})
    run.reject(source="questions", key=trace_id, reason=reason, detail=detail, content=content)
