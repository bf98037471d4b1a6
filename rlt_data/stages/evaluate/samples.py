"""The samples of an evaluation: what is asked of a model, by the keys of the rows that come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl

from rlt_data.engines import SamplingParameters, derive_sample_seed
from rlt_data.errors import UsageError
from rlt_data.formats import ConversationFormat
from rlt_data.hashing import hash_content
from rlt_data.stages.evaluate.config import EvaluateConfig
from rlt_data.stages.runtime.engine_models import EngineModel, identify_engine_model
from rlt_data.stages.runtime.run import StageRun
from rlt_data.tasks.definition import TaskDefinition
from rlt_data.tasks.prompts import TaskPrompt, arrange_options, write_prompt
from rlt_data.tasks.questions import TaskQuestion


@dataclass(frozen=True)
class EvaluatedTask:
    """A task as it is asked here: its definition, the number of samples a question, and the sampling."""

    task: TaskDefinition
    samples: int
    sampling: SamplingParameters
    prompt_hash: str

    def list_identity(self) -> list[Any]:
        """Return what determines the completions besides model and questions, as JSON values."""
        sampling = self.sampling
        return [
            self.task.name,
            self.prompt_hash,
            [sampling.temperature, sampling.top_p, sampling.top_k, sampling.max_tokens],
        ]


@dataclass(frozen=True)
class Sample:
    """One completion to sample."""

    question: TaskQuestion
    sample_index: int

    def write_prompt(self, task: TaskDefinition) -> TaskPrompt:
        """Write the user's message, with the options in the order of this sample."""
        return write_prompt(task, self.question, self.sample_index)

    def derive_seed(self, seed: int) -> int:
        """Derive the seed of this sample from that of the evaluation."""
        return derive_sample_seed(seed, self.question.question_id, self.sample_index)


def describe_task(config: EvaluateConfig, task: TaskDefinition, format: ConversationFormat) -> EvaluatedTask:
    """Combine a task with the options of the command. Raises `UsageError` for equal samples."""
    own = task.sampling
    samples = config.samples or own.samples
    temperature = own.temperature if config.temperature is None else config.temperature
    if samples > 1 and temperature == 0 and task.choices is None and not config.is_answered:
        raise UsageError(
            f"all {samples} samples of a question would be the same: the temperature is 0",
            where=f"task {task.name}",
            remedy="set a temperature, such as --temperature 0.6, or take one sample",
        )
    sampling = SamplingParameters(
        temperature=temperature,
        top_p=config.top_p or own.top_p,
        top_k=own.top_k if config.top_k is None else config.top_k,
        max_tokens=config.max_tokens or own.max_tokens,
    )
    return EvaluatedTask(task, samples, sampling, task.hash_prompt(format.student.model_dump()))


def list_samples(
    config: EvaluateConfig, task: EvaluatedTask, model: EngineModel, questions: list[TaskQuestion]
) -> dict[str, Sample]:
    """List the samples of one model on one task, by their `evaluation_id`."""
    shared = hash_content(
        "evaluation", identify_engine_model(config, model), task.list_identity(), config.list_row_identity()
    )
    return {
        hash_content(shared, question.question_id, index, *arrange_options(question, index)): Sample(
            question, index
        )
        for question in questions
        for index in range(task.samples)
    }


def drop_existing(run: StageRun, samples: dict[str, Sample], *, task: str, model: str) -> dict[str, Sample]:
    """Return the samples that are neither in `evaluations` nor rejected by this run; note those of others.

    Samples are identified by the weights, so they may be there under another name of the model.
    """
    wanted = pl.LazyFrame({"evaluation_id": list(samples)}, schema={"evaluation_id": pl.String})
    found = (
        run.written("evaluations")
        .select("evaluation_id", "model", (pl.col("run_id") == run.run_id).alias("mine"))
        .join(wanted, on="evaluation_id", how="semi")
        .collect(engine="streaming")
    )
    existing = set(found.get_column("evaluation_id"))
    others = found.filter(~pl.col("mine") | (pl.col("model") != model))
    for name, number in others.group_by("model").len().sort("model").iter_rows():
        under = "" if name == model else f", as those of {name}"
        run.note(f"{number:,} completions of {task} by {model} are in the lake already{under}")
    rejects = run.written("rejects").filter(pl.col("run_id") == run.run_id).select("key").collect()
    existing.update(rejects.get_column("key").drop_nulls())
    return {key: sample for key, sample in samples.items() if key not in existing}
