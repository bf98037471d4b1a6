"""The progress of a training in a pipe and in a terminal."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from rlt_data.training.common.metrics import read_numbers
from rlt_data.training.common.progress_table import ProgressTable

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


def test_a_pipe_gets_a_line_at_intervals(capsys: pytest.CaptureFixture[str]) -> None:
    table = ProgressTable("GRPO", 10)
    table.on_train_begin(None, state(0), None)
    table.on_log(None, state(1), None, logs=LOGS)
    table.on_log(None, state(2), None, logs=LOGS)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("GRPO: step 1/10 loss=0.25 reward=-1.5 entropy=1.1")
    assert "left" in lines[0]


def test_a_line_shows_the_share_of_groups_without_spread(capsys: pytest.CaptureFixture[str]) -> None:
    ProgressTable("GRPO", 10).on_log(None, state(1), None, logs={**LOGS, "frac_reward_zero_std": 0.25})
    assert " no_spread=0.25 " in capsys.readouterr().err


@pytest.mark.parametrize(("quiet", "main"), [(True, True), (False, False)])
def test_quiet_and_other_processes_show_nothing(
    quiet: bool, main: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    table = ProgressTable("GRPO", 10, quiet=quiet)
    table.on_log(None, state(1, main), None, logs=LOGS)
    assert capsys.readouterr().err == ""


def test_the_table_shows_parts_and_warnings() -> None:
    table = ProgressTable("GRPO", 10)
    table.warn("be careful")
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(table._draw(3, read_numbers(LOGS), "1 s/step"))
    text = console.export_text()
    assert "step 3 of 10" in text
    assert "0.2  2" in text
    assert "be careful" in text
