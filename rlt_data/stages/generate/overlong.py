"""Explanations that are too long for the student that is to learn from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rlt_data.errors import UsageError
from rlt_data.formats import ConversationFormat, check_template, render_student_text
from rlt_data.formats.spans import encode_texts
from rlt_data.models import ModelIdentity, find_context, load_tokenizer, resolve_model
from rlt_data.stages.generate.config import GenerateConfig

OVERLONG_COUNTS = {
    "keep": ("over_long_kept",),
    "drop": ("over_long_lost",),
    "resample": ("over_long_recollected", "over_long_draws", "over_long_lost"),
}
"""What the summary counts under each way to treat over-long explanations."""


@dataclass(frozen=True)
class StudentContext:
    """The student's context in tokens, and how a student text is counted."""

    student: ModelIdentity
    limit: int
    count_tokens: Callable[[str, str, str], int]
    """Tokens of the student text of a question, an explanation and a solution."""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides which explanations are over-long."""
        return {"student": self.student.content_key, "limit": self.limit}


def find_student_context(config: GenerateConfig, format: ConversationFormat) -> StudentContext | None:
    """Find the student's context; None where no student is given.

    Raises `ModelError` where the student's tokenizer cannot be loaded, `UsageError` where its context is
    unknown.
    """
    if config.student is None:
        return None
    student = resolve_model(config.student, role="student", need="tokenizer")
    tokenizer = load_tokenizer(student)
    # Counting tokens needs no notes, only the errors.
    check_template(format, tokenizer, "student", name=student.name)
    limit = config.student_context or find_context(student, tokenizer)
    if limit is None:
        raise UsageError(
            "the student's configuration does not state the length of its context",
            where=str(student.directory),
            remedy="--student-context TOKENS",
        )

    def count_tokens(question: str, think: str, solution: str) -> int:
        text = render_student_text(format, tokenizer, question, think, solution).text
        return len(encode_texts(tokenizer, [text])[0].token_ids)

    return StudentContext(student, limit, count_tokens)
