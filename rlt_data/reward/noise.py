"""Numerical noise: how much the chosen floating-point type and packing change rewards and rankings.

The reference is float32, one text at a time, through the model's own attention.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from rlt_data.reward.rewards import RewardParts

PARTS = ("solution_logprob_avg", "solution_logprob_min", "kl_avg", "kl_max", "r_ss", "r_kl", "reward")


@dataclass(frozen=True)
class PartNoise:
    """Absolute differences of one part of the reward, nats."""

    mean: float
    largest: float


@dataclass(frozen=True)
class NoiseReport:
    """Differences between two ways of scoring the same rows.

    `kendall_tau` is tau-b of the two rankings within a question, averaged over the `questions` with at least
    two distinct rewards; `changed_winners` is the share of those whose best explanation differs. Both are
    None if there is no such question.
    """

    rows: int
    questions: int
    parts: Mapping[str, PartNoise]
    kendall_tau: float | None
    changed_winners: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)

    def describe(self) -> str:
        """Write the report as one sentence."""
        reward = self.parts.get("reward") or self.parts["r_ss"]
        text = f"noise over {self.rows} rows: the reward changes by {reward.mean:.2g} on average, "
        text += f"{reward.largest:.2g} at most"
        if self.kendall_tau is not None and self.changed_winners is not None:
            text += f"; rankings within {self.questions} questions: Kendall tau {self.kendall_tau:.3f}, "
            text += f"another best explanation in {self.changed_winners:.1%}"
        return text


def compare_rewards(
    chosen: Sequence[RewardParts], reference: Sequence[RewardParts], groups: Sequence[str]
) -> NoiseReport:
    """Compare two scorings of the same rows; `groups` names the question (and student) of each row."""
    parts = {}
    for name in PARTS:
        pairs = [(getattr(a, name), getattr(b, name)) for a, b in zip(chosen, reference, strict=True)]
        gaps = [abs(a - b) for a, b in pairs if a is not None and b is not None]
        if gaps:
            parts[name] = PartNoise(sum(gaps) / len(gaps), max(gaps))
    taus: list[float] = []
    changed = 0
    for rows in _gather(groups).values():
        left = [_find_reward(chosen[row]) for row in rows]
        right = [_find_reward(reference[row]) for row in rows]
        tau = compute_kendall_tau(left, right)
        if tau is None:
            continue
        taus.append(tau)
        # The winner changed if the reference has a better reward than that of the chosen way's winner.
        changed += right[max(range(len(left)), key=left.__getitem__)] < max(right)
    return NoiseReport(
        rows=len(chosen),
        questions=len(taus),
        parts=parts,
        kendall_tau=sum(taus) / len(taus) if taus else None,
        changed_winners=changed / len(taus) if taus else None,
    )


def compute_kendall_tau(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Compute Kendall's tau-b of two rankings; None if all values of either are equal."""
    agreeing = opposed = left_ties = right_ties = 0
    for i, j in combinations(range(len(left)), 2):
        a, b = _sign(left[i] - left[j]), _sign(right[i] - right[j])
        agreeing += a * b > 0
        opposed += a * b < 0
        left_ties += a == 0
        right_ties += b == 0
    total = len(left) * (len(left) - 1) // 2
    scale = (total - left_ties) * (total - right_ties)
    return float((agreeing - opposed) / scale**0.5) if scale else None


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)


def _gather(groups: Sequence[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    return rows


def _find_reward(parts: RewardParts) -> float:
    return parts.reward if parts.reward is not None else parts.r_ss
