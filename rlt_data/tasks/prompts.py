"""The user's message for one sample of a question: the task's template, filled."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from rlt_data.tasks.definition import OPTION_PLACEHOLDER, PLACEHOLDER, TaskDefinition
from rlt_data.tasks.options import LETTERS, order_options
from rlt_data.tasks.questions import TaskQuestion


@dataclass(frozen=True)
class TaskPrompt:
    """One message, with the options in the order shown and the true answer: of a choice, its letter."""

    message: str
    options: tuple[str, ...]
    answer: str | None


def write_prompt(task: TaskDefinition, question: TaskQuestion, sample_index: int) -> TaskPrompt:
    """Write the user's message of one sample.

    Options are ordered by a hash of question, sample and option, so that each is as likely at any letter and
    the order is the same on any machine and in any order of work.
    """
    options, answer = arrange_options(question, sample_index)
    listed = task.separator.join(
        _fill(OPTION_PLACEHOLDER, task.option, {"letter": LETTERS[position], "text": option})
        for position, option in enumerate(options)
    )
    values = {"question": question.question, "options": listed}
    return TaskPrompt(_fill(PLACEHOLDER, task.prompt, values), options, answer)


def arrange_options(question: TaskQuestion, sample_index: int) -> tuple[tuple[str, ...], str | None]:
    """Return the options in the order shown, and the true answer: the letter of the right option."""
    if not question.options:
        return (), question.answer
    order = order_options(question.question_id, sample_index, question.options)
    letter = None if question.right is None else LETTERS[order.index(question.right)]
    return tuple(question.options[index] for index in order), letter


def _fill(pattern: re.Pattern[str], template: str, values: Mapping[str, str]) -> str:
    """Replace placeholders once: braces in questions stay as they are."""
    parts = pattern.split(template)
    return "".join(values[part] if index % 2 else part for index, part in enumerate(parts))
