"""Callbacks of transformers' trainer that do not import it: the trainer needs their methods, not a class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rlt_data.progress import Task


class Callback:
    """A trainer callback that ignores every event; subclasses define the `on_...` methods they need.

    Events and their arguments are those of `transformers.TrainerCallback`.
    """

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return _ignore_event


def _ignore_event(*arguments: Any, **values: Any) -> None:
    return None


class ProgressCallback(Callback):
    """Counts optimizer steps on a progress bar."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def on_step_end(self, args: Any, state: Any, control: Any, **values: Any) -> None:
        """Count one step."""
        self.task.advance(1)
