"""The public implementation's method of scoring, rewritten: the baseline of the benchmarks.

One text at a time, each model's full logits, log-softmax over every position, spans found by searching
token lists. Nothing is shared between texts. (The public code also collects garbage after every text; that
is omitted here, since it would make the comparison look better.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlt_data.formats import ConversationFormat, render_student_text, render_teacher_text
from rlt_data.reward.scoring.scoring_model import ScoringModel
from rlt_data.reward.scoring.texts import ScoreRequest


@dataclass(frozen=True)
class BaselineScore:
    """One explanation's numbers, per token, nats."""

    solution_logprobs: list[float]
    think_student: list[float]
    think_teacher: list[float]
    tokens: int


def score_baseline(
    format: ConversationFormat, student: ScoringModel, teacher: ScoringModel, requests: Sequence[ScoreRequest]
) -> list[BaselineScore]:
    """Score explanations one after the other."""
    results = []
    with torch.no_grad():
        for request in requests:
            student_text = render_student_text(
                format, student.tokenizer, request.question, request.think, request.solution
            ).text
            teacher_text = render_teacher_text(
                format,
                teacher.tokenizer,
                request.question,
                request.solution,
                request.think,
                closing=format.teacher.close,
            ).text
            student_ids, student_logprobs = _score_text(student, student_text)
            teacher_ids, teacher_logprobs = _score_text(teacher, teacher_text)
            think = _find(student.tokenizer, student_ids, request.think)
            solution = _find(student.tokenizer, student_ids, request.solution)
            teacher_think = _find(teacher.tokenizer, teacher_ids, request.think)
            results.append(
                BaselineScore(
                    student_logprobs[solution.start - 1 : solution.stop - 1].tolist(),
                    student_logprobs[think.start - 1 : think.stop - 1].tolist(),
                    teacher_logprobs[teacher_think.start - 1 : teacher_think.stop - 1].tolist(),
                    len(student_ids) + len(teacher_ids),
                )
            )
    return results


def _score_text(scoring: ScoringModel, text: str) -> tuple[list[int], torch.Tensor]:
    ids: Any = scoring.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    logits = scoring.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    logprobs = torch.log_softmax(logits[:, :-1] / scoring.temperature, dim=-1)
    picked = logprobs.gather(-1, ids[:, 1:, None])[0, :, 0]
    return ids[0].tolist(), picked


def _find(tokenizer: Any, ids: list[int], text: str) -> range:
    """Find the last occurrence of the tokens of `text` in `ids`, less edge tokens that merged with a tag."""
    searched = tokenizer(text, add_special_tokens=False)["input_ids"]
    for left, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        part = searched[left : len(searched) - right]
        for start in range(len(ids) - len(part), -1, -1):
            if ids[start : start + len(part)] == part:
                return range(start, start + len(part))
    raise ValueError(f"not found: {text!r}")
