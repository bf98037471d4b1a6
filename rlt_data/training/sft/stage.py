"""Supervised fine-tuning of a teacher or a student on rows of the lake, by TRL's SFTTrainer."""

from __future__ import annotations

from typing import Any

from rlt_data.errors import UsageError
from rlt_data.formats import load_format
from rlt_data.lake import Lake
from rlt_data.models import load_tokenizer, read_model_config, resolve_model
from rlt_data.progress import Reporter
from rlt_data.stages.runtime.contract import StageSummary
from rlt_data.stages.runtime.run import StageRun
from rlt_data.training.common.distributed import World, place_model
from rlt_data.training.common.requirements import find_missing_packages, refuse
from rlt_data.training.common.session import PreparedTraining, TrainingSession, run_training
from rlt_data.training.common.trl_options import build_lora
from rlt_data.training.common.weights import is_sharded
from rlt_data.training.sft.config import SftConfig
from rlt_data.training.sft.forecast import count_steps
from rlt_data.training.sft.options import check_options, list_options
from rlt_data.training.sft.roles import find_role
from rlt_data.training.sft.selection import ExampleSelector
from rlt_data.training.sft.sft_trainer import run_sft_trainer
from rlt_data.training.sft.tokenized import TokenizedExamples

SCHEME_VERSION = 1


def train_sft(
    lake: Lake, config: SftConfig, *, force: bool = False, reporter: Reporter | None = None
) -> StageSummary:
    """Train a teacher on explanations or a student on distillation examples, with loss on its own turn only.

    The trained model is `extra["model"]` of the summary. An interrupted run resumes from its last whole
    checkpoint. Raises `UsageError` for options that TRL refuses, `InputError` where there is nothing to
    learn from or where labels would not teach the model to stop.
    """
    return run_training(
        lake,
        config,
        prepare_sft(lake, config),
        output=config.output,
        keep_checkpoints=config.keep_checkpoints,
        force=force,
        reporter=reporter,
    )


def prepare_sft(lake: Lake, config: SftConfig) -> PreparedTraining[TokenizedExamples]:
    """Check the options, resolve the model and find the source of the examples.

    Raises `UsageError`, `ModelError` for an unknown model, `LakeError` where there are no examples.
    """
    refuse(find_missing_packages(check_options(config)), where="sft.trainer")
    base = resolve_model(config.model, role=config.role)
    format = load_format(config.format)
    role = find_role(config.role)
    # The other processes do not read the lake.
    source = role.find_source(lake, config) if World().is_main else {}

    def select(run: StageRun) -> TokenizedExamples:
        return ExampleSelector(run, config, role, source, base).select()

    def train(session: TrainingSession, examples: TokenizedExamples) -> None:
        _train(session, examples, config)

    return PreparedTraining(
        role.declaration,
        base=base,
        identity={"format": format.identity_text(), **source},
        scheme_version=SCHEME_VERSION,
        select=select,
        train=train,
    )


def _train(session: TrainingSession, examples: TokenizedExamples, config: SftConfig) -> None:
    tokenizer = load_tokenizer(session.base)
    options = list_options(config, session.directory)
    # TRL loads the model, after its own configuration, so that a process never holds all of a sharded one.
    init = {"dtype": "float32", "local_files_only": True, **place_model(options)}
    options["model_init_kwargs"] = {**init, **(options.get("model_init_kwargs") or {})}
    pack_tokens = None
    if config.packing:
        longest = int(examples.lengths.max())
        pack_tokens = max(config.max_tokens or read_model_config(session.base).context or longest, longest)
    dataset = examples.make_dataset() if pack_tokens is None else examples.make_packed_dataset(pack_tokens)
    if session.run is not None and config.packing:
        session.run.summary.extra["packed_rows"] = len(dataset)

    def watch(trainer: Any) -> None:
        if config.lora is not None and is_sharded(trainer):
            raise UsageError(
                "the adapter is merged at the end, which sharded weights do not allow",
                where="sft.lora",
                remedy="launch without ZeRO-3 and FSDP, or remove sft.lora",
            )
        session.watch(trainer)

    with session.show_progress(count_steps(config, len(dataset), world=World().size)) as callbacks:
        trainer = run_sft_trainer(
            str(session.base.require_directory()),
            tokenizer,
            examples,
            dataset,
            options=options,
            output_dir=session.directory,
            callbacks=callbacks,
            resume_from=session.find_checkpoint(),
            on_built=watch,
            adapter=build_lora(config.lora, where="sft.lora"),
        )
    session.save(trainer, tokenizer, merge=config.lora is not None)
