"""Generate: teachers explain each question, given its solution; each sample is a row of `traces`.

The engine, its floating-point type and batching are not part of a generation's identity: they change speed
and, by rounding, single samples, not the distribution that is sampled from; each row records them. Engine
options that change the model, such as quantization, are part of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlt_data.engines import FailedRequest
from rlt_data.errors import UsageError, require_module
from rlt_data.formats import load_format
from rlt_data.lake import Lake
from rlt_data.settings import load_settings
from rlt_data.stages.generate.config import GenerateConfig
from rlt_data.stages.generate.overlong import OVERLONG_COUNTS, StudentContext, find_student_context
from rlt_data.stages.generate.requests import (
    Generation,
    Sample,
    check_renderers,
    describe_generation,
    list_missing,
)
from rlt_data.stages.generate.trace_writer import TraceWriter
from rlt_data.stages.generate.truncation_limit import TruncationLimit
from rlt_data.stages.runtime.engine_models import open_model_engine, resolve_engine_model
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.stage import stage


@stage(GenerateConfig)
def generate(lake: Lake, config: GenerateConfig) -> Preparation:
    """Generate explanations: a teacher model sees each question with its solution and explains it.

    What is sampled for a trace depends on the seed, the question and the sample alone. A trace of the same
    generation (teacher weights, format, sampling, seed) that is in the lake already is not generated again.
    Traces are committed as they finish, and an interrupted run resumes with those that are missing. Several
    teachers run one after the other.

    The stage stops where more than `max_truncated_share` of a teacher's explanations are truncated: during
    the run, once 32 have finished and the share is above the limit beyond chance (Wilson's 95% lower bound),
    and at the end (by the plain share; below 32 by the bound). Committed rows are kept.

    Where a student is named, explanations whose student text exceeds its context are counted, and kept,
    dropped (to `rejects`) or sampled again, according to `over_context`.

    Raises `UsageError` where nothing can be generated as requested, `StageStoppedError` where too many
    explanations are truncated, `ModelError` and `MissingExtraError` where a teacher cannot be run,
    `EngineError` where its engine or server dies.
    """
    settings = load_settings()
    format = load_format(config.format, settings)
    teachers = [
        resolve_engine_model(config, name, role="teacher", settings=settings) for name in config.teacher
    ]
    student = find_student_context(config, format)
    if lake.table("questions").count() == 0:
        raise UsageError("the lake has no questions", where=lake.uri, remedy="rlt-data ingest FILE")
    identity: dict[str, Any] = {"format": format.identity_text()}
    if config.is_served:
        identity["renderers"] = [
            teacher.renderer.content_key if teacher.renderer else None for teacher in teachers
        ]
    if student is not None:
        identity["student"] = student.identity
    if config.model_options:
        identity["model_options"] = config.model_options

    def execute(run: StageRun) -> None:
        if config.is_served:
            # Before a tokenizer is loaded, which takes seconds.
            require_module("httpx", "openai")
            from rlt_data.engines.openai.server import await_server

            await_server(config.read_server_options(), notify=run.reporter.message)
        check_renderers(run, config, teachers, format)
        for teacher in teachers:
            generation = describe_generation(config, teacher, format, student, run.attempt)
            _run_generation(run, generation, student)

    return Preparation(execute, models=[teacher.model for teacher in teachers], identity=identity)


def _run_generation(run: StageRun, generation: Generation, student: StudentContext | None) -> None:
    """Generate the missing traces of one generation."""
    config, teacher = generation.config, generation.teacher.model
    limit = TruncationLimit(config)
    missing = list_missing(run, generation, limit)
    if student is not None:
        # Zero is a result too: the summary shows it.
        run.count(**dict.fromkeys(OVERLONG_COUNTS[config.over_context], 0))
    refusals: list[FailedRequest] = []
    if missing:
        with open_model_engine(run, config, teacher) as engine:
            writer = TraceWriter(run, generation, engine, limit, student, refusals)
            with run.track(f"generate with {teacher.name}", len(missing), "traces") as task:
                pending: Mapping[str, Sample] = missing
                for draw in range(1 + config.resamples):
                    pending = writer.write(pending, draw, task)
                    if not pending:
                        break
            figures = {"rows_per_second": writer.rows_per_second, **engine.figures}
            if len(config.teacher) > 1:
                run.summary.extra[teacher.name] = figures
            else:
                run.summary.extra |= figures
            for note in engine.notes:
                run.note(note)
            if limit.by_context:
                run.note(
                    f"{limit.by_context} explanations were truncated by the context of "
                    f"{teacher.name}, before max_tokens {config.max_tokens}"
                )
            run.flush()
    if refusals and len(refusals) == len(missing) and not limit.completions:
        raise UsageError(
            f"no question fits: {refusals[0].detail}",
            where=f"teacher {teacher.name}",
            remedy=("lower max_tokens, or " if config.is_served else "")
            + "use a teacher with a longer context, or shorter questions",
        )
    limit.check_at_end(run.run_id)
