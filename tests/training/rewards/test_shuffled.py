"""The shuffled reward: each group keeps its rewards and loses their meaning."""

from __future__ import annotations

from types import SimpleNamespace

from rlt_data.training.rewards.shuffled import ShuffledReward


class Counting:
    last = ("true parts",)

    def __call__(self, prompts: list[str], completions: list[str], **columns: object) -> list[float]:
        return [float(index) for index in range(len(prompts))]


def reward(step: int, seed: int = 0, groups: int = 3) -> list[float]:
    prompts = [f"question {index // 8}" for index in range(8 * groups)]
    state = SimpleNamespace(global_step=step)
    return ShuffledReward(Counting(), seed=seed)(prompts, prompts, trainer_state=state)


def test_rewards_stay_in_their_group() -> None:
    rewards = reward(step=1)
    for group in range(3):
        assert sorted(rewards[8 * group : 8 * group + 8]) == [float(8 * group + i) for i in range(8)]
    assert rewards != sorted(rewards)


def test_the_draw_depends_on_seed_and_step_alone() -> None:
    assert reward(step=1) == reward(step=1)
    assert reward(step=1) != reward(step=2)
    assert reward(step=1) != reward(step=1, seed=1)
    assert reward(step=1)[:8] == reward(step=1, groups=1)


def test_true_parts_stay_visible() -> None:
    assert ShuffledReward(Counting(), seed=0).last == ("true parts",)
