"""SFT warm-up of a teacher: explanations from the lake, in the teacher's format, by TRL's SFTTrainer."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import polars as pl
from pydantic import Field

from rlt_data.errors import InputError, UsageError
from rlt_data.formats import ConversationFormat, check_template, load_format
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.models import ModelIdentity, load_tokenizer, read_model_config, resolve_model
from rlt_data.progress import Reporter
from rlt_data.stages.runtime.run import StageConfig, StageRun, StageSummary, open_run
from rlt_data.stages.runtime.selection import select_rows
from rlt_data.training.common.checkpoints import CheckpointCallback, find_whole_checkpoint
from rlt_data.training.common.distributed import World, choose_precision, place_model
from rlt_data.training.common.progress_table import HealthCallback, ProgressTable
from rlt_data.training.common.saving import describe_result, save_result
from rlt_data.training.common.trl_options import (
    RESERVED,
    RESERVED_SFT,
    build_lora,
    build_options,
    select_deciding,
)
from rlt_data.training.common.weights import explain_coarse_weights, is_sharded
from rlt_data.training.rl.conflicts import find_missing_packages, refuse
from rlt_data.training.rl.rollouts import MetricsCallback
from rlt_data.training.sft.examples import (
    Explained,
    SupervisedExample,
    build_teacher_examples,
    check_example,
    describe_example,
)
from rlt_data.training.sft.sft_trainer import run_sft_trainer

SCHEME_VERSION = 1


class SftSection(StageConfig):
    """What the teacher is warmed up on, and how. `trainer` passes options of `trl.SFTConfig` through."""

    where: str | None = Field(
        None,
        description="SQL predicate over traces: learn from these alone. Cut-off ones are left out anyway.",
    )
    limit: int | None = Field(None, ge=1, description="Learn from the first so many explanations only.")
    max_tokens: int | None = Field(None, ge=1, description="Longer texts are rejected; default: the context.")
    keep_checkpoints: int = Field(1, ge=1, description="Checkpoints to keep.")
    trainer: dict[str, Any] = Field(default_factory=dict, description="Options of trl.SFTConfig.")
    lora: dict[str, Any] | None = Field(
        None,
        description="Options of peft.LoraConfig; the adapter is merged at the end. Unset trains all weights.",
    )


class SftConfig(SftSection):
    """A whole warm-up."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"output", "keep_checkpoints"})

    teacher: str = Field(description="The model to start from: an alias, a hub id or a local path.")
    output: str = Field(description="Directory for checkpoints and for the trained model.")
    format: str = Field("stratos", description="Conversation format.")
    seed: int = Field(0, ge=0, description="Seed of the order of texts.")

    def list_identity(self) -> dict[str, Any]:
        """Return what decides the result: of the trainer's options, those that do."""
        return {**super().list_identity(), "trainer": select_deciding(self.trainer)}


class _Work(NamedTuple):
    """What every process needs, as plain values."""

    run_id: str
    directory: str
    rows: list[Explained]


def train_sft(
    lake: Lake, config: SftConfig, *, force: bool = False, reporter: Reporter | None = None
) -> StageSummary:
    """Train a teacher on explanations from the lake: loss on the explanation and its closing tag alone.

    The trained model is saved to `extra["model"]` of the summary. A run that was cut off goes on from its
    last whole checkpoint. Raises `UsageError` for options that TRL refuses, `InputError` where there is
    nothing to learn from or where labels would not teach the model to stop.
    """
    reporter = reporter or Reporter(quiet=True)
    world = World()
    refuse(find_missing_packages(check_options(config)), where="sft.trainer")
    identity = resolve_model(config.teacher, role="teacher")
    format = load_format(config.format)
    if not world.is_main:
        work = world.receive()
        if work is not None:
            _train(None, _Work(*work), config, identity, format, reporter)
        return StageSummary(stage="sft", run_id="", status="done in the main process")
    try:
        with open_run(
            lake,
            "sft",
            config,
            inputs=("questions", "traces"),
            outputs=("metrics",),
            models=[identity],
            identity={"format": format.identity_text()},
            scheme_version=SCHEME_VERSION,
            force=force,
            reporter=reporter,
        ) as run:
            if run.already_done:
                world.send(None)
                return run.summary
            rows = select_examples(run, config)
            work = _Work(run.run_id, str(Path(config.output) / f"sft-{run.run_id[:12]}"), rows)
            world.send(tuple(work))
            _train(run, work, config, identity, format, reporter)
        return run.summary
    finally:
        world.fail()


def select_examples(run: StageRun, config: SftConfig) -> list[Explained]:
    """Select explanations that closed, in an order that depends on their content alone.

    Raises `InputError` where there is none.
    """
    traces = keep_learnable(select_rows(run, "traces", config.where))
    questions = run.read("questions").select("question_id", "question", "solution")
    joined = traces.join(questions, on="question_id").sort("trace_id")
    if config.limit is not None:
        joined = joined.head(config.limit)
    rows = joined.select("question", "solution", "think").collect()
    if not rows.height:
        raise InputError(
            "there is no explanation to learn from",
            where=f"traces of {run.lake.uri}" + (f" where {config.where}" if config.where else ""),
            remedy="ingest a corpus with reasoning traces, such as Bespoke-Stratos-17k, or loosen `where`",
        )
    run.summary.extra["explanations"] = rows.height
    return [Explained(*row) for row in rows.iter_rows()]


def keep_learnable(traces: pl.LazyFrame) -> pl.LazyFrame:
    """Keep traces from which a teacher may learn to explain: with a text, and closed."""
    written = pl.col("think").str.strip_chars() != ""
    return traces.filter(written & ~pl.col("truncated") & (pl.col("state") != "missing_close"))


def list_options(config: SftConfig, output: Path) -> dict[str, Any]:
    """The options of `trl.SFTConfig` in full: the recipe's over this program's defaults."""
    return {
        "logging_steps": 1,
        "report_to": "none",
        "save_strategy": "steps",
        "save_steps": 100,
        **choose_precision(config.trainer),
        **config.trainer,
        "save_total_limit": None,
        "seed": config.seed,
        "output_dir": str(output),
        "disable_tqdm": True,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }


def check_options(config: SftConfig) -> Any:
    """Build the `trl.SFTConfig` of a recipe, and try its LoRA options. Raises as `build_options` does."""
    build_lora(config.lora, where="sft.lora")
    alone = {**choose_precision(config.trainer), **config.trainer}
    build_options("SFTConfig", alone, where="sft.trainer", reserved={**RESERVED, **RESERVED_SFT})
    return build_options("SFTConfig", list_options(config, Path(config.output)), where="sft.trainer")


def _train(
    run: StageRun | None,
    work: _Work,
    config: SftConfig,
    identity: ModelIdentity,
    format: ConversationFormat,
    reporter: Reporter,
) -> None:
    directory = Path(work.directory)
    tokenizer = load_tokenizer(identity)
    examples = _prepare(run, work.rows, tokenizer, config, identity, format)
    ends = read_model_config(identity).end_token_ids
    check_example(examples[0], tokenizer, format, end_token_ids=ends)
    if run is not None and not reporter.quiet:
        shown = describe_example(examples[0])
        print(f"one example, what is learned between ⟦ and ⟧:\n{shown}\n", file=sys.stderr)
    options = list_options(config, directory)
    # Loaded by TRL, after its own configuration: sharded trainings never hold the whole model at once.
    init = {"dtype": "float32", "local_files_only": True, **place_model(options)}
    options["model_init_kwargs"] = {**init, **(options.get("model_init_kwargs") or {})}
    steps = count_steps(config, len(examples), world=World().size)
    view = ProgressTable("SFT warm-up", steps, quiet=reporter.quiet)
    checkpoints = CheckpointCallback(
        run.flush if run is not None else _do_nothing, keep=config.keep_checkpoints, run_id=work.run_id
    )
    callbacks = [MetricsCallback(run, phase="sft"), HealthCallback(view.warn), view, checkpoints]

    def watch(trainer: Any) -> None:
        if config.lora is not None and is_sharded(trainer):
            raise UsageError(
                "the adapter is merged at the end, and here the weights are spread over processes",
                where="sft.lora",
                remedy="launch without ZeRO-3 and FSDP, or leave sft.lora out",
            )
        checkpoints.watch(trainer)
        if run is not None and (coarse := explain_coarse_weights(trainer)):
            view.warn(coarse)
            run.note(coarse)

    try:
        trainer = run_sft_trainer(
            str(identity.require_directory()),
            tokenizer,
            examples,
            options=options,
            output_dir=directory,
            callbacks=callbacks,
            resume_from=find_whole_checkpoint(directory),
            on_built=watch,
            adapter=build_lora(config.lora, where="sft.lora"),
        )
    finally:
        view.close()
    about = {
        "run_id": work.run_id,
        "stage": "sft",
        "base": identity.model,
        "base_revision": identity.revision,
    }
    save_result(trainer, tokenizer, directory / "model", about=about, merge=config.lora is not None)
    if run is not None:
        run.summary.extra |= {"examples": len(examples), "optimiser_steps": trainer.state.global_step}
        run.summary.extra |= describe_result(directory / "model")


def _prepare(
    run: StageRun | None,
    rows: list[Explained],
    tokenizer: Any,
    config: SftConfig,
    identity: ModelIdentity,
    format: ConversationFormat,
) -> list[SupervisedExample]:
    """Tokenize all texts; those that cannot be learned from are rejects, and left out in all processes."""
    for note in check_template(format, tokenizer, "teacher", name=identity.name):
        if run is not None:
            run.note(note)
    model = read_model_config(identity)
    limit = config.max_tokens or model.context
    examples = build_teacher_examples(format, tokenizer, rows, end_token_ids=model.end_token_ids)
    kept = []
    for row, example in zip(rows, examples, strict=True):
        flaw = _find_flaw(example, limit)
        if flaw is None:
            kept.append(example)
        elif run is not None:
            key = hash_content(row.question, row.think)
            run.reject(source="traces", reason=flaw[0], detail=flaw[1], key=key)
    if not kept:
        raise InputError(
            f"none of {len(rows)} texts can be learned from: they are longer than {limit} tokens, or a token "
            "straddles the edge between prompt and explanation",
            where="rejects of this run",
            remedy="raise sft.max_tokens, or let the format's prefill end where a token ends",
        )
    return kept


def _find_flaw(example: SupervisedExample, limit: int | None) -> tuple[str, str] | None:
    if limit is not None and len(example.token_ids) > limit:
        return "over_length", f"the teacher's text is {len(example.token_ids)} tokens, the limit {limit}"
    if not example.is_aligned:
        return "straddling_token", "a token stands partly in the prompt and partly in the explanation"
    return None


def count_steps(config: SftConfig, examples: int, *, world: int) -> int:
    """Count the optimiser steps of a warm-up on so many examples in so many processes.

    Raises `UsageError` for a number of epochs that is not above 0.
    """
    options: Mapping[str, Any] = config.trainer
    if int(options.get("max_steps", -1)) > 0:
        return int(options["max_steps"])
    batch = int(options.get("per_device_train_batch_size", 8)) * world
    accumulation = int(options.get("gradient_accumulation_steps", 1))
    batches = -(-examples // batch)
    per_epoch = max(1, -(-batches // accumulation))
    epochs = float(options.get("num_train_epochs", 3.0))
    if epochs <= 0:
        raise UsageError("num_train_epochs must be above 0", where="sft.trainer.num_train_epochs")
    return int(-(-per_epoch * epochs // 1))


def _do_nothing() -> None:
    return None
