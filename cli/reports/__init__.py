"""What the command of a stage prints besides the summary: one module a stage, listed in `REPORTS`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from rlt_data.terminal import StdoutClosedError

from ..streams import silence_stdout
from ..summary import print_summary

if TYPE_CHECKING:
    from rlt_data.lake import Lake
    from rlt_data.stages.runtime.contract import StageSummary

REPORTS = ("evaluate", "grade", "compare")


class Report(Protocol):
    """A module of this folder.

    `OPTIONS` are options of the command: for each its annotation and default.
    """

    OPTIONS: Mapping[str, tuple[Any, Any]]

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise `UsageError` for options that exclude one another, before the stage runs."""
        ...

    def print_result(
        self, lake: Lake, summary: StageSummary, options: Mapping[str, Any], *, as_json: bool
    ) -> None:
        """Print the result and the summary; as JSON one object, and nothing else."""
        ...


def find_report(stage: str) -> Report | None:
    """Import the report of a stage; None where its command prints only the summary."""
    if stage not in REPORTS:
        return None
    return cast(Report, import_module(f"{__package__}.{stage.replace('-', '_')}"))


def print_result(lake: Lake, summary: StageSummary) -> None:
    """Print what the command of a stage prints without options: its report, or the summary."""
    report = find_report(summary.stage)
    if report is None:
        print_summary(lake, summary, as_json=False)
    else:
        defaults = {name: default for name, (_, default) in report.OPTIONS.items()}
        try:
            report.print_result(lake, summary, defaults, as_json=False)
        except StdoutClosedError:
            silence_stdout()  # The recipe goes on.
