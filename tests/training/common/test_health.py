"""Warnings about trainings that learn little, with advice."""

from __future__ import annotations

from types import SimpleNamespace

from rlt_data.training.common.health import HealthCallback


def state(step: int) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, is_world_process_zero=True)


def test_health_warns_with_what_to_do_once_it_lasts() -> None:
    warned: list[str] = []
    health = HealthCallback(warned.append, window=3)
    odd = {"frac_reward_zero_std": 1.0, "rlt/cut_off_share": 0.2}
    for _ in range(2):
        health.on_log(None, state(1), None, logs=odd)
    assert not warned, "two steps are no evidence"
    for share in (1.0, 0.9, 0.8):
        health.on_log(None, state(1), None, logs={**odd, "frac_reward_zero_std": share})
    assert len(warned) == 1, "warned once, whatever the share"
    assert "100%" in warned[0]
    assert "raise" in warned[0]
    for _ in range(3):
        health.on_log(None, state(1), None, logs={"rlt/cut_off_share": 0.9})
    assert any("max_tokens" in text for text in warned)
