"""What training shows on stderr: one table that is redrawn each step, or a line every half minute."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rich.live import Live
from rich.table import Table

from rlt_data.console import VisibleConsole, make_cell
from rlt_data.progress import LINE_SECONDS, format_duration
from rlt_data.terminal import print_note, show_block
from rlt_data.training.common.callbacks import Callback
from rlt_data.training.common.metrics import read_numbers

# The rows of the table, in order: title, and the names under which trainers log the values.
ROWS = (
    ("loss", ("loss",)),
    ("reward", ("reward",)),
    ("  r_SS, average and minimum", ("rlt/solution_logprob_avg", "rlt/solution_logprob_min")),
    ("  r_KL, average and maximum", ("rlt/kl_avg", "rlt/kl_max")),
    ("  format penalty", ("rlt/format_penalty",)),
    ("correct answers", ("correctness/correct",)),
    ("reward standard deviation", ("reward_std",)),
    ("groups without spread", ("frac_reward_zero_std",)),
    ("KL to the reference", ("kl",)),
    ("entropy", ("entropy",)),
    ("truncated completions", ("rlt/cut_off_share",)),
    ("completion length", ("completions/mean_length",)),
    ("clipped ratios", ("clip_ratio/region_mean",)),
    ("gap between engine and trainer", ("sampling/sampling_logp_difference/mean",)),
    ("token accuracy", ("mean_token_accuracy",)),
    ("learning rate", ("learning_rate",)),
    ("gradient norm", ("grad_norm",)),
)

# What a line shows where stderr is not a terminal.
LINE = (
    ("loss", "loss"),
    ("reward", "reward"),
    ("no_spread", "frac_reward_zero_std"),
    ("kl", "kl"),
    ("entropy", "entropy"),
)


class ProgressTable(Callback):
    """Shows a training of `steps` steps on stderr: a live table, or plain lines where it is not a terminal.

    `quiet` shows nothing.
    """

    def __init__(self, title: str, steps: int, *, quiet: bool = False) -> None:
        self.title = title
        self.steps = steps
        self.quiet = quiet
        self._console = VisibleConsole(stderr=True)
        self._live: Live | None = None
        self._begun = (0, time.monotonic())
        self._tokens = (0.0, 0.0)
        self._printed = float("-inf")
        self._warnings: list[str] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        """Open the table; the speed of a resumed run counts from the step at which it resumes."""
        self._begun = (state.global_step, time.monotonic())
        if not self.quiet and state.is_world_process_zero and self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4)
            self._live.start()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **values: Any
    ) -> None:
        """Show one logging step."""
        if self.quiet or not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        numbers = read_numbers(logs)
        pace = self._describe_pace(state.global_step, numbers.get("num_tokens"))
        if self._live is not None:
            self._live.update(self._draw(state.global_step, numbers, pace))
        elif time.monotonic() - self._printed >= LINE_SECONDS:
            self._printed = time.monotonic()
            shown = " ".join(f"{name}={numbers[key]:.4g}" for name, key in LINE if key in numbers)
            print_note(f"{self.title}: step {state.global_step}/{self.steps} {shown} {pace}")

    def on_train_end(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        """Close the table; its last state stays on the screen."""
        self.close()

    def warn(self, text: str) -> None:
        """Show a warning once, under the table or as a line."""
        if text in self._warnings:
            return
        self._warnings.append(text)
        if self._live is None and not self.quiet:
            print_note(f"warning: {show_block(text)}")

    def close(self) -> None:
        """Release the terminal, also after an error."""
        if self._live is not None:
            with suppress(OSError):
                self._live.stop()
            self._live = None

    def _describe_pace(self, step: int, tokens: float | None) -> str:
        first, began = self._begun
        seconds = max(time.monotonic() - began, 1e-6)
        done = max(step - first, 1)
        left = (self.steps - step) * seconds / done
        speed = ""
        if tokens is not None:
            if not self._tokens[0]:
                self._tokens = (tokens, seconds)
            elif seconds > self._tokens[1]:
                rate = (tokens - self._tokens[0]) / (seconds - self._tokens[1])
                speed = f"{rate:,.0f} tokens/s, "
        return f"{speed}{seconds / done:.2f} s/step, {format_duration(left)} left"

    def _draw(self, step: int, numbers: Mapping[str, float], pace: str) -> Table:
        table = Table(
            title=make_cell(f"{self.title}: step {step} of {self.steps}", "table.title"),
            caption=pace,
            box=None,
        )
        table.add_column("")
        table.add_column("", justify="right")
        for name, keys in ROWS:
            values = [numbers[key] for key in keys if key in numbers]
            if values:
                table.add_row(name, "  ".join(f"{value:.4g}" for value in values))
        for text in self._warnings:
            table.add_row(make_cell(text, "yellow"), "")
        return table
