"""Check that teacher and student have the same tokens, so that a token-by-token divergence exists."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

from rlt_data.errors import UsageError
from rlt_data.formats.spans import compare_tokenizers

_differences: WeakKeyDictionary[Any, WeakKeyDictionary[Any, str | None]] = WeakKeyDictionary()


def refuse_other_tokens(teacher: Any, student: Any, *, where: str | None = None) -> None:
    """Raise `UsageError` if the tokenizers of teacher and student split text into different tokens.

    `where` names the models. The answer is cached for a pair: large vocabularies take a second to compare.
    """
    reason = _find_difference(teacher, student)
    if reason is not None:
        raise UsageError(
            f"r_KL compares teacher and student token by token, but {reason}",
            where=where,
            remedy="use models of one tokenizer family, or the reward r_SS alone: teacher none when scoring, "
            "lambda_kl = 0 when training",
        )


def _find_difference(teacher: Any, student: Any) -> str | None:
    if teacher is student:
        return None
    cached = _differences.setdefault(teacher, WeakKeyDictionary())
    if student not in cached:
        cached[student] = compare_tokenizers(teacher, student)
    return cached[student]
