"""Warnings about a training that learns little: groups without spread, truncated or unscored completions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from rlt_data.training.common.callbacks import Callback
from rlt_data.training.common.metrics import read_numbers


class HealthCallback(Callback):
    """Calls `warn` once per problem, with advice.

    A single unusual step is no evidence, so the mean of the last `window` steps is compared with the limits.
    """

    def __init__(
        self,
        warn: Callable[[str], None],
        *,
        window: int = 5,
        zero_spread: float = 0.5,
        truncated: float = 0.5,
        unscored: float = 0.1,
    ) -> None:
        self.warn = warn
        self.limits = {
            "frac_reward_zero_std": zero_spread,
            "rlt/cut_off_share": truncated,
            "rlt/unscored_share": unscored,
        }
        self._recent: dict[str, deque[float]] = {name: deque(maxlen=window) for name in self.limits}
        self._warned: set[str] = set()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **values: Any
    ) -> None:
        """Check one logging step."""
        numbers = read_numbers(logs or {})
        for name, limit in self.limits.items():
            recent = self._recent[name]
            if name in numbers:
                recent.append(numbers[name])
            lasting = len(recent) == recent.maxlen and sum(recent) / len(recent) > limit
            if lasting and name not in self._warned:
                self._warned.add(name)
                self.warn(_ADVICE[name].format(share=sum(recent) / len(recent)))


_ADVICE = {
    "frac_reward_zero_std": "in {share:.0%} of the groups all rewards are equal, so nothing is learned from "
    "them: raise the temperature or the group size, or choose questions whose completions vary more: where "
    "answers are rewarded, neither too easy nor too hard ones",
    "rlt/cut_off_share": "{share:.0%} of the completions are truncated by the length limit, and each "
    "loses reward: raise max_tokens, or train longer with SFT so that the model learns to finish",
    "rlt/unscored_share": "{share:.0%} of the completions cannot be scored and are excluded from their "
    "groups: teacher and student may tokenize them differently, or they exceed the student's context",
}
