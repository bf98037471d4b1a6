"""`CorrectnessReward`: 1 for a correct answer, the conventional reward of reasoning models."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

from rlt_data.formats import ConversationFormat, find_response, parse_student_completion
from rlt_data.formats.parsing import ParsedTrace
from rlt_data.tasks.answers import extract_answer
from rlt_data.tasks.grading.base import Grade, Grader, Item, Verdict
from rlt_data.training.rewards.completions import read_completions
from rlt_data.training.rewards.rlt import ScoredCompletion

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


class CorrectnessReward:
    """Rewards completions whose answer is the true one, by a grader of evaluation.

    The policy completes the student's prompt: it sees the question only, thinks, and answers. The reward is
    1 for a correct answer and 0 for every other completion, as in evaluation: also for a truncated one, and
    for an answer that cannot be compared within the grader's limits, so that no policy gains by such answers.
    `format_penalty` is added where thinking and solution are not both written and closed.
    """

    __name__ = "correctness"

    def __init__(
        self,
        grader: Grader,
        *,
        format: ConversationFormat,
        policy_tokenizer: Any,
        format_penalty: float = 0.0,
    ) -> None:
        self.grader = grader
        self.format = format
        self.tokenizer = policy_tokenizer
        self.format_penalty = format_penalty
        self._is_truncated: Callable[[Sequence[int]], bool] = lambda ids: False
        self.last: list[ScoredCompletion] = []
        """The completions of the last call, in its order."""

    def follow(self, trainer: Any) -> None:
        """Learn from the trainer which completions the length limit ended."""
        self._is_truncated = trainer.is_truncated

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        *,
        question: Sequence[str],
        answer: Sequence[str | None],
        solution: Sequence[str],
        metadata: Sequence[str | None] | None = None,
        log_metric: Any = None,
        **columns: Any,
    ) -> list[float | None]:
        """Reward completions; None where there is no true answer.

        `metadata` holds the questions' other columns, as JSON objects.
        """
        texts = read_completions(self.tokenizer, completions, completion_ids)
        parsed = [parse_student_completion(self.format, text) for text in texts]
        ids = completion_ids if completion_ids is not None else [()] * len(texts)
        details = metadata if metadata is not None else [None] * len(texts)
        items = [
            Item(
                key=str(index),
                completion=text,
                response=find_response(text, trace),
                truncated=self._is_truncated(ids[index]),
                question=question[index],
                answer=answer[index] or extract_answer(solution[index]),
                metadata=json.loads(details[index] or "{}"),
            )
            for index, (text, trace) in enumerate(zip(texts, parsed, strict=True))
        ]
        grades = [
            # The rest of a truncated answer is unknown: "4" may be the beginning of "42".
            replace(grade, verdict="truncated") if item.truncated and grade.verdict != "ungradable" else grade
            for item, grade in zip(items, self.grader.grade(items, "stated"), strict=True)
        ]
        self.last = [
            ScoredCompletion(trace.think or "", trace.state, self._score(grade, trace))
            for grade, trace in zip(grades, parsed, strict=True)
        ]
        if log_metric is not None and grades:
            _log(grades, log_metric)
        return [scored.reward for scored in self.last]

    def _score(self, grade: Grade, trace: ParsedTrace) -> dict[str, float]:
        """Return the columns of the reward; none where there is no true answer."""
        if grade.verdict == "ungradable":
            return {}
        whole = trace.state == "closed" and trace.solution is not None and trace.solution_closed
        penalty = 0.0 if whole else self.format_penalty
        correct = 1.0 if grade.verdict == "correct" else 0.0
        return {"reward": correct + penalty, "format_penalty": penalty}


def _log(grades: Sequence[Grade], log_metric: Any) -> None:
    total = len(grades)
    for verdict in VERDICTS:
        log_metric(f"correctness/{verdict}", sum(grade.verdict == verdict for grade in grades) / total)
    unanswered = sum(grade.extracted_answer is None for grade in grades)
    log_metric("correctness/no_answer_share", unanswered / total)
    log_metric("rlt/unscored_share", sum(grade.verdict == "ungradable" for grade in grades) / total)
