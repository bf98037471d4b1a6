"""Questions of a GRPO training: which ones, their prompts, and their order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from rlt_data.errors import InputError
from rlt_data.formats import ConversationFormat, check_template
from rlt_data.models import ModelIdentity, load_tokenizer
from rlt_data.stages.runtime.run import StageRun
from rlt_data.stages.runtime.selection import select_rows
from rlt_data.training.rl.config import AnyGrpoConfig, GrpoTraining
from rlt_data.training.rl.reward_types import LakeQuestion, find_reward_type

ItemT = TypeVar("ItemT")


class Question(NamedTuple):
    """One question to train on: a row of the lake and its prompt."""

    question_id: str
    question: str
    solution: str
    answer: str | None
    metadata: str | None
    prompt: str


def select_questions(
    run: StageRun, config: AnyGrpoConfig, model: ModelIdentity, format: ConversationFormat
) -> list[Question]:
    """Select questions and render their prompts, in an order that depends on their content only.

    Questions with a prompt over the limit go to `rejects`, and so do those that the reward cannot use.
    Raises `InputError` where no question is left.
    """
    tokenizer = load_tokenizer(model)
    reward_type = find_reward_type(config)
    for note in check_template(format, tokenizer, reward_type.role, name=model.name):
        run.note(note)
    rows = select_rows(run, "questions", config.where).sort("question_id")
    if config.limit is not None:
        rows = rows.head(config.limit)
    selected = rows.select(LakeQuestion._fields).collect()
    questions = []
    for row in selected.iter_rows():
        question = LakeQuestion(*row)
        flaw = reward_type.find_flaw(question)
        if flaw is not None:
            run.reject(source="questions", reason=flaw[0], detail=flaw[1], key=question.question_id)
            continue
        prompt = reward_type.render_prompt(format, tokenizer, question)
        tokens = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        if tokens <= config.max_prompt_tokens:
            questions.append(Question(*question, prompt))
        else:
            detail = f"the prompt has {tokens} tokens, the limit is {config.max_prompt_tokens}"
            run.reject(source="questions", reason="prompt_too_long", detail=detail, key=question.question_id)
    if not questions:
        raise InputError(
            f"none of the {selected.height} selected questions can be trained on",
            where=f"questions of {run.lake.uri}" + (f" where {config.where}" if config.where else ""),
            remedy="ingest questions, loosen `where`, or raise max_prompt_tokens",
        )
    run.summary.extra["questions"] = len(questions)
    return questions


def plan_questions(items: Sequence[ItemT], config: GrpoTraining) -> list[ItemT]:
    """List the questions of the whole training in order; each comes once before any comes again.

    The order depends on the seed only, so that a resumed training continues it.
    """
    rng = random.Random(config.seed)
    total = config.generations * config.questions_per_step
    plan: list[ItemT] = []
    while len(plan) < total:
        order = list(items)
        rng.shuffle(order)
        plan.extend(order)
    return plan[:total]
