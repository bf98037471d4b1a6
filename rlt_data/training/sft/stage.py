"""Supervised fine-tuning of a teacher or a student on rows of the lake, by TRL's SFTTrainer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlt_data.errors import InputError, UsageError
from rlt_data.formats import ConversationFormat, check_template, load_format
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.models import load_tokenizer, read_model_config, resolve_model
from rlt_data.progress import Reporter
from rlt_data.stages.runtime.contract import StageSummary
from rlt_data.stages.runtime.run import StageRun
from rlt_data.stages.runtime.selection import select_rows
from rlt_data.terminal import print_note
from rlt_data.training.common.distributed import World, place_model
from rlt_data.training.common.requirements import find_missing_packages, refuse
from rlt_data.training.common.session import PreparedTraining, TrainingSession, run_training
from rlt_data.training.common.trl_options import build_lora
from rlt_data.training.common.weights import is_sharded
from rlt_data.training.sft.config import SftConfig
from rlt_data.training.sft.examples import Explained, SupervisedExample, check_example, describe_example
from rlt_data.training.sft.forecast import count_steps
from rlt_data.training.sft.options import check_options, list_options
from rlt_data.training.sft.roles import SftRole, find_role
from rlt_data.training.sft.sft_trainer import run_sft_trainer

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


def prepare_sft(lake: Lake, config: SftConfig) -> PreparedTraining[Sequence[Explained]]:
    """Check the options, resolve the model and find the source of the examples.

    Raises `UsageError`, `ModelError` for an unknown model, `LakeError` where there are no examples.
    """
    refuse(find_missing_packages(check_options(config)), where="sft.trainer")
    base = resolve_model(config.model, role=config.role)
    format = load_format(config.format)
    role = find_role(config.role)
    # The other processes do not read the lake.
    source = role.find_source(lake, config) if World().is_main else {}

    def select(run: StageRun) -> Sequence[Explained]:
        return select_explained(run, config, role, source)

    def train(session: TrainingSession, rows: Sequence[Explained]) -> None:
        _train(session, rows, config, role, format)

    return PreparedTraining(
        role.declaration,
        base=base,
        identity={"format": format.identity_text(), **source},
        scheme_version=SCHEME_VERSION,
        select=select,
        train=train,
    )


def select_explained(
    run: StageRun, config: SftConfig, role: SftRole, source: dict[str, str]
) -> list[Explained]:
    """Select what the model learns from, in an order that depends on its content only.

    Raises `InputError` where there is nothing.
    """
    rows = role.add_explanations(role.keep_rows(select_rows(run, role.table, config.where), source), run)
    questions = run.read("questions").select("question_id", "question", "solution")
    joined = rows.join(questions, on="question_id").sort("trace_id")
    if config.limit is not None:
        joined = joined.head(config.limit)
    selected = joined.select("question", "solution", "think").collect()
    if not selected.height:
        raise InputError(
            f"there are no examples for the {config.role} to learn from",
            where=f"{role.table} of {run.lake.uri}" + (f" where {config.where}" if config.where else ""),
            remedy="ingest a corpus with reasoning traces, such as Bespoke-Stratos-17k, or loosen `where`",
        )
    run.summary.extra["explanations"] = selected.height
    return [Explained(*row) for row in selected.iter_rows()]


def _train(
    session: TrainingSession,
    rows: Sequence[Explained],
    config: SftConfig,
    role: SftRole,
    format: ConversationFormat,
) -> None:
    tokenizer = load_tokenizer(session.base)
    examples = _prepare_examples(session, rows, tokenizer, config, role, format)
    if session.run is not None and not session.reporter.quiet:
        shown = describe_example(examples[0])
        print_note(f"first example, with the labeled part between ⟦ and ⟧:\n{shown}\n")
    options = list_options(config, session.directory)
    # TRL loads the model, after its own configuration, so that a process never holds all of a sharded one.
    init = {"dtype": "float32", "local_files_only": True, **place_model(options)}
    options["model_init_kwargs"] = {**init, **(options.get("model_init_kwargs") or {})}

    def watch(trainer: Any) -> None:
        if config.lora is not None and is_sharded(trainer):
            raise UsageError(
                "the adapter is merged at the end, which sharded weights do not allow",
                where="sft.lora",
                remedy="launch without ZeRO-3 and FSDP, or remove sft.lora",
            )
        session.watch(trainer)

    with session.show_progress(count_steps(config, len(examples), world=World().size)) as callbacks:
        trainer = run_sft_trainer(
            str(session.base.require_directory()),
            tokenizer,
            examples,
            options=options,
            output_dir=session.directory,
            callbacks=callbacks,
            resume_from=session.find_checkpoint(),
            on_built=watch,
            adapter=build_lora(config.lora, where="sft.lora"),
        )
    if session.run is not None:
        session.run.summary.extra["examples"] = len(examples)
    session.save(trainer, tokenizer, merge=config.lora is not None)


def _prepare_examples(
    session: TrainingSession,
    rows: Sequence[Explained],
    tokenizer: Any,
    config: SftConfig,
    role: SftRole,
    format: ConversationFormat,
) -> list[SupervisedExample]:
    """Tokenize all texts, in every process; reject those that cannot be learned from."""
    for note in check_template(format, tokenizer, config.role, name=session.base.name):
        session.note(note)
    model = read_model_config(session.base)
    limit = config.max_tokens or model.context
    kept = []
    examples = role.build_examples(format, tokenizer, rows, model.end_token_ids)
    for row, example in zip(rows, examples, strict=True):
        flaw = _find_flaw(example, limit)
        if flaw is None:
            kept.append(example)
        elif session.run is not None:
            key = hash_content(row.question, row.think)
            session.run.reject(source=role.table, reason=flaw[0], detail=flaw[1], key=key)
    if not kept:
        raise InputError(
            f"none of {len(rows)} texts can be learned from: each has more than {limit} tokens, or a token "
            "that begins in the prompt and ends after it",
            where="rejects of this run",
            remedy="raise sft.max_tokens, or end the format's prefill where a token ends",
        )
    closing = role.find_closing(format)
    check_example(kept[0], tokenizer, format, closing=closing, end_token_ids=model.end_token_ids)
    return kept


def _find_flaw(example: SupervisedExample, limit: int | None) -> tuple[str, str] | None:
    if limit is not None and len(example.token_ids) > limit:
        return "over_length", f"the text has {len(example.token_ids)} tokens, the limit is {limit}"
    if not example.is_aligned:
        return "straddling_token", "a token begins in the prompt and ends in what is to be learned"
    return None
