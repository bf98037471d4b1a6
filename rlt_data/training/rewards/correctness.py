"""`CorrectnessReward`: 1 for a correct answer, the conventional baseline of the RLT paper."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rlt_data.formats import ConversationFormat, parse_student_completion
from rlt_data.tasks.answers import extract_answer
from rlt_data.tasks.extraction import extract_stated
from rlt_data.tasks.grading.verifier import AnswerVerifier
from rlt_data.training.rewards.completions import read_completions
from rlt_data.training.rewards.rlt import ScoredCompletion


class CorrectnessReward:
    """Rewards completions whose answer equals the true one, and nothing else.

    The policy completes the student's prompt: it sees the question only, thinks, and answers. Answers are
    compared in processes that can be killed. Use as a context manager.
    """

    __name__ = "correctness"

    def __init__(self, *, format: ConversationFormat, policy_tokenizer: Any, seconds: float = 5.0) -> None:
        self.format = format
        self.tokenizer = policy_tokenizer
        self.last: list[ScoredCompletion] = []
        self._verifier = AnswerVerifier(seconds=seconds)

    def __enter__(self) -> CorrectnessReward:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._verifier.close()

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]] | None = None,
        *,
        answer: Sequence[str | None],
        solution: Sequence[str],
        log_metric: Any = None,
        **columns: Any,
    ) -> list[float | None]:
        """Reward completions: 1 or 0; None where there is no true answer or the comparison gave no result."""
        true = [stated or extract_answer(text) for stated, text in zip(answer, solution, strict=True)]
        texts = read_completions(self.tokenizer, completions, completion_ids)
        parsed = [parse_student_completion(self.format, text) for text in texts]
        given = [extract_stated(trace.solution or "").text for trace in parsed]
        verdicts = self._verifier.verify(zip(true, given, strict=True))
        rewards: list[float | None] = []
        for expected, verdict in zip(true, verdicts, strict=True):
            if expected is None or verdict in ("timed_out", "failed"):
                rewards.append(None)
            else:
                rewards.append(1.0 if verdict == "correct" else 0.0)
        self.last = [
            ScoredCompletion(trace.think or "", trace.state, {"reward": reward})
            for trace, reward in zip(parsed, rewards, strict=True)
        ]
        if log_metric is not None and rewards:
            log_metric("correctness/no_answer_share", sum(answer is None for answer in given) / len(given))
            log_metric("rlt/unscored_share", sum(reward is None for reward in rewards) / len(rewards))
        return rewards
