"""Grade the true answers of a task against themselves, before a model is asked anything."""

from __future__ import annotations

import json
from collections.abc import Iterable

from rlt_data.stages.runtime.run import StageRun
from rlt_data.tasks.definition import TaskDefinition
from rlt_data.tasks.grading.base import Grader, Item
from rlt_data.tasks.prompts import write_prompt
from rlt_data.tasks.questions import TaskQuestion

SHOWN = 5


def check_golds(
    run: StageRun, task: TaskDefinition, grader: Grader, questions: Iterable[TaskQuestion]
) -> None:
    """Note the true answers that the task's grader does not recognize; their questions stay.

    A completion that gave such an answer would count as wrong.
    """
    asked = {question.question_id: question for question in questions}
    items = [_make_item(task, question) for question in asked.values()]
    failed = [grade for grade in grader.grade(items, "stated") if grade.verdict != "correct"]
    if not failed:
        return
    shown = []
    for grade in failed[:SHOWN]:
        question = asked[grade.key]
        row = "" if question.source_row is None else f" row {question.source_row}"
        gold = write_prompt(task, question, 0).answer
        shown.append(f"{question.source}{row}: {_shorten(gold)} is {grade.verdict}")
    more = f"; and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
    run.summary.extra.setdefault("unverified_golds", {})[task.name] = len(failed)
    run.note(
        f"{task.name}: {len(failed):,} of {len(items):,} true answers are not verified by the grader "
        f"{task.grader} itself, and stay in the total: {'; '.join(shown)}{more}"
    )


def _make_item(task: TaskDefinition, question: TaskQuestion) -> Item:
    prompt = write_prompt(task, question, 0)
    answer = prompt.answer or ""
    text = rf"\boxed{{{answer}}}"
    metadata = json.loads(question.metadata or "{}")
    return Item(
        key=question.question_id,
        completion=text,
        response=text,
        truncated=False,
        question=question.question,
        answer=prompt.answer,
        options=prompt.options,
        metadata=metadata if isinstance(metadata, dict) else {},
    )


def _shorten(text: str | None) -> str:
    if text is None:
        return "no answer"
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
