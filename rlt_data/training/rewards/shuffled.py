"""`ShuffledReward`: a control that should teach nothing, to compare a training with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from rlt_data.hashing import hash_content


class ShuffledReward:
    """Distributes the rewards of each group among its completions at random.

    They keep their distribution and lose their meaning. The draw depends on seed, step and group only.
    """

    __name__ = "shuffled"

    def __init__(self, reward: Any, *, seed: int) -> None:
        self.reward = reward
        self.seed = seed

    @property
    def last(self) -> Any:
        """The completions of the inner reward's last call, with their true parts."""
        return self.reward.last

    @property
    def notes(self) -> Sequence[str]:
        """The notes of the inner reward."""
        return tuple(getattr(self.reward, "notes", ()))

    def follow(self, trainer: Any) -> None:
        """Make the inner reward follow a trainer."""
        if hasattr(self.reward, "follow"):
            self.reward.follow(trainer)

    def __call__(
        self, prompts: Sequence[Any], completions: Sequence[Any], *arguments: Any, **columns: Any
    ) -> list[float | None]:
        """Reward completions, then shuffle the rewards within each sequence of equal prompts."""
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
