"""GRPO of a teacher or a student by TRL: rollouts, metrics and a model from questions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from rlt_data.errors import require_module
from rlt_data.formats import ConversationFormat, load_format
from rlt_data.lake import Lake
from rlt_data.models import load_tokenizer, read_model_config, resolve_model
from rlt_data.models.identity import Need
from rlt_data.models.loading import hide_progress_bars
from rlt_data.progress import Reporter
from rlt_data.stages.runtime.contract import StageSummary
from rlt_data.stages.runtime.run import StageRun
from rlt_data.training.common.checkpoints import load_reference
from rlt_data.training.common.distributed import World, keep_to_one_device, place_model
from rlt_data.training.common.divergence import explain_sampling
from rlt_data.training.common.requirements import refuse
from rlt_data.training.common.session import PreparedTraining, TrainingSession, run_training
from rlt_data.training.common.trl_options import build_lora, build_options
from rlt_data.training.registry import GRPO_STUDENT, GRPO_TEACHER
from rlt_data.training.rewards.completions import decode_completion
from rlt_data.training.rl.config import AnyGrpoConfig, GrpoConfig, StudentGrpoConfig
from rlt_data.training.rl.conflicts import find_conflicts
from rlt_data.training.rl.options import check_options, list_options
from rlt_data.training.rl.questions import Question, plan_questions, select_questions
from rlt_data.training.rl.reward_types import build_reward, find_reward_type
from rlt_data.training.rl.rollouts import RolloutRecorder, count_earlier_rows, count_rollouts

SCHEME_VERSION = 1


def train_grpo(
    lake: Lake, config: AnyGrpoConfig, *, force: bool = False, reporter: Reporter | None = None
) -> StageSummary:
    """Train a model by GRPO; each completion becomes a row of `rollouts`, each number one of `metrics`.

    The trained model is `extra["model"]` of the summary. An interrupted run resumes from its last whole
    checkpoint; later steps are taken again and write the same rows. Raises `UsageError` for options that
    TRL refuses, `InputError` where there is nothing to train on, `StageStoppedError` where an engine turns
    out to sample from other weights than those trained.
    """
    return run_training(
        lake,
        config,
        prepare_grpo(config),
        output=config.output,
        keep_checkpoints=config.keep_checkpoints,
        force=force,
        reporter=reporter,
    )


def prepare_grpo(config: AnyGrpoConfig) -> PreparedTraining[Sequence[Question]]:
    """Check the options and resolve the models. Raises `UsageError`, or `ModelError` for unknown models."""
    options = check_options(config, world=World().size)
    base = resolve_model(config.model, role=config.role)
    context = read_model_config(base).context
    refuse(find_conflicts(config, options, context=context), where=config.section)
    served = isinstance(config, GrpoConfig) and config.student_server
    need: Need = "tokenizer" if served else "weights"
    students = [resolve_model(name, role="student", need=need) for name in config.scoring_students]
    format = load_format(config.format)

    def select(run: StageRun) -> Sequence[Question]:
        return select_questions(run, config, base, format)

    def train(session: TrainingSession, questions: Sequence[Question]) -> None:
        _train(session, questions, config, format)

    return PreparedTraining(
        GRPO_STUDENT if isinstance(config, StudentGrpoConfig) else GRPO_TEACHER,
        base=base,
        models=students,
        identity={"format": format.identity_text(), **find_reward_type(config).identify(format)},
        scheme_version=SCHEME_VERSION,
        select=select,
        train=train,
    )


def _train(
    session: TrainingSession, questions: Sequence[Question], config: AnyGrpoConfig, format: ConversationFormat
) -> None:
    transformers = require_module("transformers", "train")
    from rlt_data.training.rl.engine_sync import SyncCheck
    from rlt_data.training.rl.grpo_trainer import RltTrainer

    transformers.utils.logging.set_verbosity_error()
    # TRL logs the whole prompt of every completion without a reward; here their share is a metric.
    logging.getLogger("trl.trainer.grpo_trainer").setLevel(logging.ERROR)
    tokenizer = load_tokenizer(session.base)
    tokenizer.padding_side = "left"
    stop = find_reward_type(config).find_stop(format)
    options = list_options(config, session.directory, world=World().size)
    if stop and options.get("use_vllm"):
        stopping = {"stop": [stop], "include_stop_str_in_output": True, "skip_special_tokens": False}
        options["generation_kwargs"] = {**stopping, **(options.get("generation_kwargs") or {})}
    init = {"local_files_only": True, **place_model(options)}
    options["model_init_kwargs"] = {**init, **(options.get("model_init_kwargs") or {})}
    arguments = build_options("GRPOConfig", options, where=f"{config.section}.trainer")
    keep_to_one_device(arguments)
    with ExitStack() as stack:
        callbacks = stack.enter_context(session.show_progress(config.steps))
        stack.enter_context(hide_progress_bars())
        reward = build_reward(config, format, tokenizer, stack, notify=session.message)
        for note in getattr(reward, "notes", ()):
            session.note(note)
        trainer = RltTrainer(
            model=str(session.base.require_directory()),
            reward_funcs=[reward],
            args=arguments,
            train_dataset=_build_dataset(questions, config),
            processing_class=tokenizer,
            callbacks=callbacks,
            peft_config=build_lora(config.lora, where=f"{config.section}.lora"),
            draw_seed=config.seed,
            stop=stop,
            sync=SyncCheck(config.sync_limit),
        )
        if session.run is not None:
            _record_rollouts(session.run, trainer, tokenizer, session.base.name)
        if hasattr(reward, "follow"):
            reward.follow(trainer)
        session.watch(trainer)
        resume_from = session.find_checkpoint()
        if resume_from is not None:
            load_reference(trainer, resume_from)
        with explain_sampling(config.section):
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        session.save(trainer, tokenizer)
    if session.run is not None:
        count_rollouts(session.run)


def _record_rollouts(run: StageRun, trainer: Any, tokenizer: Any, policy: str) -> None:
    earlier = 0 if trainer.draws_by_seed else count_earlier_rows(run)
    if earlier:
        run.note(
            "steps since the last checkpoint were sampled again after an interruption; the earlier samples "
            "stay in rollouts, in groups of their own"
        )
    decode = partial(decode_completion, tokenizer)
    trainer.record = RolloutRecorder(run, decode=decode, policy=policy, earlier_rows=earlier).record


def _build_dataset(questions: Sequence[Question], config: AnyGrpoConfig) -> Any:
    datasets = require_module("datasets", "train")
    plan = plan_questions(questions, config)
    columns = {name: [getattr(question, name) for question in plan] for name in Question._fields}
    return datasets.Dataset.from_dict({**columns, "group_index": list(range(len(plan)))})
