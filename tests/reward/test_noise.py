"""The noise report: differences by hand, ranks against all pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlt_data.reward.noise import compare_rewards, compute_kendall_tau
from rlt_data.reward.rewards import RewardParts

PARTS = RewardParts("k1", 0.01, 3.0, -1.0, -2.0, 0.5, 1.0, 0.0, -1.02, 0.51, -2.55)


def test_differences_and_rankings() -> None:
    rewards = [(1.0, 1.0), (2.0, 2.5), (3.0, 2.4), (0.0, 0.0), (1.0, 1.0)]
    chosen = [replace(PARTS, reward=a) for a, _ in rewards]
    reference = [replace(PARTS, reward=b, kl_avg=0.6) for _, b in rewards]
    report = compare_rewards(chosen, reference, ["a", "a", "a", "b", "b"])
    assert report.rows == 5
    assert report.questions == 2
    assert report.parts["reward"].largest == pytest.approx(0.6)
    assert report.parts["reward"].mean == pytest.approx(1.1 / 5)
    assert report.parts["kl_avg"].mean == pytest.approx(0.1)
    assert report.parts["r_ss"].largest == 0
    assert report.kendall_tau == pytest.approx((1 / 3 + 1) / 2)
    assert report.changed_winners == 0.5
    assert "another best explanation in 50.0%" in report.describe()


def test_without_a_teacher_there_is_no_divergence_to_compare() -> None:
    bare = replace(PARTS, kl_avg=None, kl_max=None, r_kl=None, reward=None)
    report = compare_rewards([bare, bare], [bare, bare], ["a", "a"])
    assert "kl_avg" not in report.parts
    assert report.kendall_tau is None
    assert "changes by 0" in report.describe()


values = st.lists(st.integers(0, 5), min_size=2, max_size=8)


@given(values)
def test_a_ranking_agrees_with_itself_and_opposes_its_reverse(ranking: list[float]) -> None:
    tau = compute_kendall_tau(ranking, ranking)
    if len(set(ranking)) == 1:
        assert tau is None
    else:
        assert tau == pytest.approx(1.0)
        assert compute_kendall_tau(ranking, [-value for value in ranking]) == pytest.approx(-1.0)


def test_kendall_tau_with_ties() -> None:
    # By hand: pairs (1,2) agree, (1,3) agree, (2,3) tied on the left: 2 / sqrt(2 * 3).
    assert compute_kendall_tau([1, 2, 2], [1, 2, 3]) == pytest.approx(2 / 6**0.5)
