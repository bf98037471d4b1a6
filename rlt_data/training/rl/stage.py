"""GRPO of a teacher by TRL's trainer, with our reward: tables in, tables and a model out."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rlt_data.errors import InputError, require_module
from rlt_data.formats import (
    ConversationFormat,
    Role,
    check_template,
    load_format,
    render_student_prompt,
    render_teacher_prompt,
)
from rlt_data.lake import Lake
from rlt_data.models import ModelIdentity, load_tokenizer, read_model_config, resolve_model
from rlt_data.models.identity import Need
from rlt_data.models.loading import hide_progress_bars
from rlt_data.progress import Reporter
from rlt_data.stages.runtime.run import StageRun, StageSummary, open_run
from rlt_data.stages.runtime.selection import select_rows
from rlt_data.tasks.answers import extract_answer
from rlt_data.training.common.checkpoints import CheckpointCallback, find_whole_checkpoint, load_reference
from rlt_data.training.common.distributed import World, keep_to_one_device, place_model
from rlt_data.training.common.progress_table import HealthCallback, ProgressTable
from rlt_data.training.common.saving import describe_result, save_result
from rlt_data.training.common.trl_options import build_lora, build_options
from rlt_data.training.common.weights import explain_coarse_weights
from rlt_data.training.rewards.completions import decode_completion
from rlt_data.training.rl.config import GrpoConfig, check_options, list_options, plan_questions
from rlt_data.training.rl.conflicts import find_conflicts, refuse
from rlt_data.training.rl.rollouts import MetricsCallback, RolloutRecorder, count_earlier_rows, count_rollouts

if TYPE_CHECKING:
    from rlt_data.reward.backends.base import LogprobBackend
    from rlt_data.reward.scoring.scoring_model import ScoringModel

SCHEME_VERSION = 1


class Question(NamedTuple):
    """One question to train on."""

    question_id: str
    question: str
    solution: str
    answer: str | None
    prompt: str


class _Work(NamedTuple):
    """What every process needs, as plain values."""

    run_id: str
    directory: str
    questions: list[tuple[Any, ...]]


def train_grpo(
    lake: Lake, config: GrpoConfig, *, force: bool = False, reporter: Reporter | None = None
) -> StageSummary:
    """Train a teacher by GRPO; every completion becomes a row of `rollouts`, every number one of `metrics`.

    The trained model is saved to `extra["model"]` of the summary. A run that was cut off goes on from its
    last whole checkpoint; steps since then are taken again and write the same rows. Raises `UsageError`
    for options that TRL refuses, `InputError` where there is nothing to train on, `StageStoppedError` where
    an engine turns out to sample from other weights than those trained.
    """
    reporter = reporter or Reporter(quiet=True)
    world = World()
    options = check_options(config, world=world.size)
    teacher = resolve_model(config.teacher, role="teacher")
    context = read_model_config(teacher).context
    refuse(find_conflicts(config, options, context=context), where="grpo")
    need: Need = "tokenizer" if config.student_server else "weights"
    scoring = config.students if config.reward == "rlt" else ()
    students = [resolve_model(name, role="student", need=need) for name in scoring]
    format = load_format(config.format)
    if not world.is_main:
        work = world.receive()
        if work is not None:
            _train(None, _Work(*work), config, teacher, format, reporter)
        return StageSummary(stage="grpo", run_id="", status="done in the main process")
    try:
        with open_run(
            lake,
            "grpo",
            config,
            inputs=("questions",),
            outputs=("rollouts", "metrics"),
            models=[teacher, *students],
            identity={"format": format.identity_text()},
            scheme_version=SCHEME_VERSION,
            force=force,
            reporter=reporter,
        ) as run:
            if run.already_done:
                world.send(None)
                return run.summary
            questions = select_questions(run, config, teacher, format)
            directory = Path(config.output) / f"grpo-{run.run_id[:12]}"
            work = _Work(run.run_id, str(directory), [tuple(q) for q in questions])
            world.send(tuple(work))
            _train(run, work, config, teacher, format, reporter)
        return run.summary
    finally:
        world.fail()


def select_questions(
    run: StageRun, config: GrpoConfig, teacher: ModelIdentity, format: ConversationFormat
) -> list[Question]:
    """Select and render questions, in an order that depends on their content alone.

    A prompt over the limit is a reject, and so is a question without an answer where answers are paid for.
    Raises `InputError` where no question is left.
    """
    tokenizer = load_tokenizer(teacher)
    role: Role = "student" if config.reward == "correctness" else "teacher"
    for note in check_template(format, tokenizer, role, name=teacher.name):
        run.note(note)
    rows = select_rows(run, "questions", config.where).sort("question_id")
    if config.limit is not None:
        rows = rows.head(config.limit)
    selected = rows.select("question_id", "question", "solution", "answer").collect()
    questions = []
    for question_id, question, solution, answer in selected.iter_rows():
        if config.reward == "correctness" and answer is None and extract_answer(solution) is None:
            detail = "the solution states no final answer to compare with"
            run.reject(source="questions", reason="no_answer", detail=detail, key=question_id)
            continue
        if config.reward == "correctness":
            prompt = render_student_prompt(format, tokenizer, question).text
        else:
            prompt = render_teacher_prompt(format, tokenizer, question, solution).text
        tokens = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        if tokens <= config.max_prompt_tokens:
            questions.append(Question(question_id, question, solution, answer, prompt))
        else:
            detail = f"the prompt is {tokens} tokens, the limit {config.max_prompt_tokens}"
            run.reject(source="questions", reason="prompt_too_long", detail=detail, key=question_id)
    if not questions:
        raise InputError(
            f"no question is left to train on, of {selected.height} selected",
            where=f"questions of {run.lake.uri}" + (f" where {config.where}" if config.where else ""),
            remedy="ingest questions, loosen `where`, or raise max_prompt_tokens",
        )
    run.summary.extra["questions"] = len(questions)
    return questions


def _train(
    run: StageRun | None,
    work: _Work,
    config: GrpoConfig,
    teacher: ModelIdentity,
    format: ConversationFormat,
    reporter: Reporter,
) -> None:
    transformers = require_module("transformers", "train")
    from rlt_data.training.rl.engine_sync import SyncCheck
    from rlt_data.training.rl.grpo_trainer import RltTrainer

    transformers.utils.logging.set_verbosity_error()
    # It shows a whole prompt for every completion that cannot be scored; their share is a metric here.
    logging.getLogger("trl.trainer.grpo_trainer").setLevel(logging.ERROR)
    directory = Path(work.directory)
    tokenizer = load_tokenizer(teacher)
    tokenizer.padding_side = "left"
    stop = format.teacher.close if config.reward == "rlt" else None
    options = list_options(config, directory, world=World().size)
    if stop and options.get("use_vllm"):
        told = {"stop": [stop], "include_stop_str_in_output": True, "skip_special_tokens": False}
        options["generation_kwargs"] = {**told, **(options.get("generation_kwargs") or {})}
    init = {"local_files_only": True, **place_model(options)}
    options["model_init_kwargs"] = {**init, **(options.get("model_init_kwargs") or {})}
    arguments = build_options("GRPOConfig", options, where="grpo.trainer")
    keep_to_one_device(arguments)
    view = ProgressTable("GRPO", config.steps, quiet=reporter.quiet)
    callbacks = [MetricsCallback(run, phase="grpo"), _make_health(run, view), view]
    with ExitStack() as stack:
        stack.callback(view.close)
        stack.enter_context(hide_progress_bars())
        reward = _build_reward(config, format, tokenizer, stack, run)
        trainer = RltTrainer(
            model=str(teacher.require_directory()),
            reward_funcs=[reward],
            args=arguments,
            train_dataset=_build_dataset(work, config),
            processing_class=tokenizer,
            callbacks=callbacks,
            peft_config=build_lora(config.lora, where="grpo.lora"),
            draw_seed=config.seed,
            stop=stop,
            sync=SyncCheck(config.sync_limit),
        )
        if run is not None:
            earlier = 0 if trainer.draws_by_seed else count_earlier_rows(run)
            if earlier:
                run.note(
                    "steps since the last checkpoint were sampled anew after an interruption; what was "
                    "sampled the first time stays in rollouts, in groups of its own"
                )
            decode = partial(decode_completion, tokenizer)
            trainer.record = RolloutRecorder(
                run, decode=decode, policy=teacher.name, earlier_rows=earlier
            ).record
        if hasattr(reward, "follow"):
            reward.follow(trainer)
        if run is not None and (coarse := explain_coarse_weights(trainer)):
            view.warn(coarse)
            run.note(coarse)
        trainer.remove_callback(transformers.PrinterCallback)
        checkpoints = CheckpointCallback(
            run.flush if run is not None else _do_nothing, keep=config.keep_checkpoints, run_id=work.run_id
        )
        checkpoints.watch(trainer)
        # Last of the callbacks: a checkpoint is whole when all others have done what they do on saving.
        trainer.add_callback(checkpoints)
        resume_from = find_whole_checkpoint(directory)
        if resume_from is not None:
            load_reference(trainer, resume_from)
        trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
        about = {
            "run_id": work.run_id,
            "stage": "grpo",
            "base": teacher.model,
            "base_revision": teacher.revision,
        }
        save_result(trainer, tokenizer, directory / "model", about=about)
    if run is not None:
        count_rollouts(run)
        run.summary.extra["optimiser_steps"] = trainer.state.global_step
        run.summary.extra |= describe_result(directory / "model")


def _build_reward(
    config: GrpoConfig, format: ConversationFormat, tokenizer: Any, stack: ExitStack, run: StageRun | None
) -> Any:
    from rlt_data.training.rewards.correctness import CorrectnessReward
    from rlt_data.training.rewards.rlt import RltReward
    from rlt_data.training.rewards.shuffled import ShuffledReward

    reward: Any
    if config.reward == "correctness":
        reward = stack.enter_context(CorrectnessReward(format=format, policy_tokenizer=tokenizer))
    else:
        reward = RltReward(
            [_open_student(name, config) for name in config.students],
            policy_tokenizer=tokenizer,
            format=format,
            settings=config.rlt,
            teacher_temperature=config.teacher_temperature,
            sampling_temperature=config.temperature,
            teacher_side=config.teacher_side,
            combine=config.combine,
            pack_tokens=config.pack_tokens,
        )
        if run is not None:
            for note in reward.notes:
                run.note(note)
    return ShuffledReward(reward, seed=config.seed) if config.shuffle_rewards else reward


def _open_student(name: str, config: GrpoConfig) -> ScoringModel | LogprobBackend:
    from rlt_data.training.rewards.students import load_student, open_served_student

    if config.student_server:
        return open_served_student(name, config.student_temperature, config.student_server)
    return load_student(
        name,
        config.student_temperature,
        dtype=config.student_dtype,
        device=config.student_device,
        quantization=config.student_quantization,
    )


def _build_dataset(work: _Work, config: GrpoConfig) -> Any:
    datasets = require_module("datasets", "train")
    plan = plan_questions([Question(*q) for q in work.questions], config)
    columns = {name: [getattr(question, name) for question in plan] for name in Question._fields}
    return datasets.Dataset.from_dict({**columns, "place": list(range(len(plan)))})


def _make_health(run: StageRun | None, view: ProgressTable) -> HealthCallback:
    def warn(text: str) -> None:
        view.warn(text)
        if run is not None:
            run.note(text)

    return HealthCallback(warn)


def _do_nothing() -> None:
    return None
