"""The view in a pipe and in a terminal, and warnings with what to do."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from rlt_data.training.common.progress_table import HealthCallback, ProgressTable
from rlt_data.training.rl.rollouts import read_numbers

LOGS = {
    "loss": "0.25",
    "reward": -1.5,
    "rlt/kl_avg": 0.2,
    "rlt/kl_max": 2.0,
    "num_tokens": 100.0,
    "entropy": 1.1,
}


def state(step: int, main: bool = True) -> SimpleNamespace:
    return SimpleNamespace(global_step=step, is_world_process_zero=main)


def test_numbers_are_read_from_text_and_nothing_else() -> None:
    logs = {"loss": "0.5", "name": "x", "nan": float("nan"), "epoch": 1.0, "none": None}
    assert read_numbers(logs) == {"loss": 0.5}


def test_a_pipe_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    view = ProgressTable("GRPO", 10)
    view.on_train_begin(None, state(0), None)
    view.on_log(None, state(1), None, logs=LOGS)
    view.on_log(None, state(2), None, logs=LOGS)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("GRPO: step 1/10 loss=0.25 reward=-1.5 entropy=1.1")
    assert "left" in lines[0]


@pytest.mark.parametrize(("quiet", "main"), [(True, True), (False, False)])
def test_quiet_and_other_processes_show_nothing(
    quiet: bool, main: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    view = ProgressTable("GRPO", 10, quiet=quiet)
    view.on_log(None, state(1, main), None, logs=LOGS)
    assert capsys.readouterr().err == ""


def test_the_table_shows_parts_and_warnings() -> None:
    view = ProgressTable("GRPO", 10)
    view.warn("be careful")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(view._draw(3, read_numbers(LOGS), "1 s/step"))
    text = console.export_text()
    assert "step 3 of 10" in text
    assert "0.2  2" in text
    assert "be careful" in text


def test_health_warns_with_what_to_do_once_it_lasts() -> None:
    warned: list[str] = []
    health = HealthCallback(warned.append, window=3)
    odd = {"frac_reward_zero_std": 1.0, "rlt/cut_off_share": 0.2}
    for _ in range(2):
        health.on_log(None, state(1), None, logs=odd)
    assert not warned, "two steps say little"
    for share in (1.0, 0.9, 0.8):
        health.on_log(None, state(1), None, logs={**odd, "frac_reward_zero_std": share})
    assert len(warned) == 1, "said once, whatever the share"
    assert "100%" in warned[0]
    assert "raise" in warned[0]
    for _ in range(3):
        health.on_log(None, state(1), None, logs={"rlt/cut_off_share": 0.9})
    assert any("max_tokens" in text for text in warned)
