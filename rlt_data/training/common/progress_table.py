"""What training looks like in a terminal: one table that is drawn anew each step, and warnings."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from rlt_data.progress import LINE_SECONDS, format_duration
from rlt_data.training.common.callbacks import Callback
from rlt_data.training.rl.rollouts import read_numbers

# What is shown, in order: how it is called here, and how the trainers call it.
ROWS = (
    ("loss", ("loss",)),
    ("reward", ("reward",)),
    ("  r_SS, average and least", ("rlt/solution_logprob_avg", "rlt/solution_logprob_min")),
    ("  r_KL, average and largest", ("rlt/kl_avg", "rlt/kl_max")),
    ("  format penalty", ("rlt/format_penalty",)),
    ("reward spread", ("reward_std",)),
    ("groups without spread", ("frac_reward_zero_std",)),
    ("KL to the reference", ("kl",)),
    ("entropy", ("entropy",)),
    ("completions cut off", ("rlt/cut_off_share",)),
    ("completion length", ("completions/mean_length",)),
    ("update clipped", ("clip_ratio/region_mean",)),
    ("engine and trainer apart", ("sampling/sampling_logp_difference/mean",)),
    ("token accuracy", ("mean_token_accuracy",)),
    ("learning rate", ("learning_rate",)),
    ("gradient norm", ("grad_norm",)),
)


class ProgressTable(Callback):
    """Shows a run of `steps` steps live on stderr; in a pipe, a line every half minute; or nothing."""

    def __init__(self, title: str, steps: int, *, quiet: bool = False) -> None:
        self.title = title
        self.steps = steps
        self.quiet = quiet
        self._console = Console(stderr=True, highlight=False)
        self._live: Live | None = None
        self._begun = (0, time.monotonic())
        self._tokens = (0.0, 0.0)
        self._told = float("-inf")
        self._warned: list[str] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        """Open the view; a resumed run counts speed from where it goes on."""
        self._begun = (state.global_step, time.monotonic())
        if not self.quiet and state.is_world_process_zero and self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4)
            self._live.start()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **values: Any
    ) -> None:
        """Draw one logging step."""
        if self.quiet or not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        numbers = read_numbers(logs)
        pace = self._describe_pace(state.global_step, numbers.get("num_tokens"))
        if self._live is not None:
            self._live.update(self._draw(state.global_step, numbers, pace))
        elif time.monotonic() - self._told >= LINE_SECONDS:
            self._told = time.monotonic()
            shown = " ".join(
                f"{name}={numbers[name]:.4g}"
                for name in ("loss", "reward", "kl", "entropy")
                if name in numbers
            )
            print(f"{self.title}: step {state.global_step}/{self.steps} {shown} {pace}", file=sys.stderr)

    def on_train_end(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        """Close the view; the last table stays."""
        self.close()

    def warn(self, text: str) -> None:
        """Show a warning once, under the table or as a line."""
        if text in self._warned:
            return
        self._warned.append(text)
        if self._live is None and not self.quiet:
            print(f"warning: {text}", file=sys.stderr)

    def close(self) -> None:
        """Give the terminal back, also after an error."""
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
        table = Table(title=f"{self.title}: step {step} of {self.steps}", caption=pace, box=None)
        table.add_column("")
        table.add_column("", justify="right")
        for name, keys in ROWS:
            values = [numbers[key] for key in keys if key in numbers]
            if values:
                table.add_row(name, "  ".join(f"{value:.4g}" for value in values))
        for text in self._warned:
            table.add_row(f"[yellow]{text}", "")
        return table


class HealthCallback(Callback):
    """Warns, once each, with what to do: no spread in groups, completions cut off or not to be scored.

    A single odd step says little: the mean of the last `window` steps is judged.
    """

    def __init__(
        self,
        warn: Callable[[str], None],
        *,
        window: int = 5,
        zero_spread: float = 0.5,
        cut_off: float = 0.5,
        unscored: float = 0.1,
    ) -> None:
        self.warn = warn
        self.limits = {
            "frac_reward_zero_std": zero_spread,
            "rlt/cut_off_share": cut_off,
            "rlt/unscored_share": unscored,
        }
        self._seen: dict[str, deque[float]] = {name: deque(maxlen=window) for name in self.limits}
        self._told: set[str] = set()

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **values: Any
    ) -> None:
        """Judge one logging step."""
        numbers = read_numbers(logs or {})
        for name, limit in self.limits.items():
            seen = self._seen[name]
            if name in numbers:
                seen.append(numbers[name])
            lasting = len(seen) == seen.maxlen and sum(seen) / len(seen) > limit
            if lasting and name not in self._told:
                self._told.add(name)
                self.warn(_ADVICE[name].format(share=sum(seen) / len(seen)))


_ADVICE = {
    "frac_reward_zero_std": "in {share:.0%} of the groups all rewards are alike, so they teach nothing: "
    "raise the temperature or the group size, or choose questions that are not always explained alike",
    "rlt/cut_off_share": "{share:.0%} of the completions are cut off by the length limit, and each "
    "pays the penalty: raise max_tokens, or warm the teacher up longer so that it learns to close",
    "rlt/unscored_share": "{share:.0%} of the completions cannot be scored and are left out of their groups: "
    "teacher and student may cut text into different tokens there, or texts exceed the student's context",
}
