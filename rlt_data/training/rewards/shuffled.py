"""Controls: rewards that should teach nothing, against which a gain is to be seen."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from rlt_data.hashing import hash_content


class ShuffledReward:
    """Hands the rewards of each group out among its completions at random.

    Their distribution stays, their meaning goes. The draw depends on seed, step and group alone.
    """

    __name__ = "shuffled"

    def __init__(self, reward: Any, *, seed: int) -> None:
        self.reward = reward
        self.seed = seed

    @property
    def last(self) -> Any:
        """What the reward behind kept of its last call: true parts, not those handed out."""
        return self.reward.last

    def follow(self, trainer: Any) -> None:
        """As of the reward behind."""
        if hasattr(self.reward, "follow"):
            self.reward.follow(trainer)

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], *arguments: Any, **columns: Any
    ) -> list[float | None]:
        """Reward completions, then shuffle within each run of equal prompts."""
        rewards = self.reward(prompts, completions, *arguments, **columns)
        state = columns.get("trainer_state")
        step = getattr(state, "global_step", 0)
        shuffled: list[float | None] = []
        begin = 0
        for end in range(1, len(prompts) + 1):
            if end == len(prompts) or prompts[end] != prompts[begin]:
                group = list(rewards[begin:end])
                random.Random(hash_content(self.seed, step, prompts[begin])).shuffle(group)
                shuffled += group
                begin = end
        return shuffled
