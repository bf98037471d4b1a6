"""Print the summary of a stage, as a short table or as JSON."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rich.text import Text

from rlt_data.terminal import StdoutClosedError, print_text, show_block, show_line

from .common import make_console, print_json_text, print_rows
from .streams import silence_stdout

if TYPE_CHECKING:
    from rlt_data.lake import Lake
    from rlt_data.stages.runtime.contract import StageSummary

_HASH = re.compile("[0-9a-f]{32}")
NUMBERS = frozenset({"rows in", "rows out", "rejected", "truncated", "tokens", "tokens/s", "seconds"})


def print_summary(lake: Lake, summary: StageSummary, *, as_json: bool) -> None:
    """Print the summary: a table, the stage's other figures and its notes; or JSON and nothing else."""
    if as_json:
        print_json_text(summary.model_dump_json(indent=2))
        return
    try:
        console = make_console()
        console.print(
            Text.assemble((summary.stage, "bold"), f": {summary.status}, run {summary.run_id[:12]}")
        )
        print_rows([list_summary_figures(lake, summary)], right=NUMBERS, wrap="tables")
        for name, value in summary.extra.items():
            print_text(f"{show_line(name.replace('_', ' '))}: {show_block(format_figure(value))}")
        for note in summary.notes:
            print_text(f"note: {show_block(note)}")
        print_text()
    except StdoutClosedError:
        silence_stdout()  # The work goes on.


def list_summary_figures(lake: Lake, summary: StageSummary) -> dict[str, str]:
    """List the figures that every stage has, formatted, and its tables with the versions that it wrote."""
    versions = {state.table: state.version for state in lake.run(summary.run_id).outputs}
    return {
        "rows in": f"{summary.rows_in:,}",
        "rows out": f"{summary.rows_out:,}",
        "rejected": f"{summary.rejected:,}",
        "truncated": f"{summary.truncated_share:.1%}" if summary.truncated or summary.tokens else "-",
        "tokens": f"{summary.tokens:,}" if summary.tokens else "-",
        "tokens/s": f"{summary.tokens_per_second:,.0f}" if summary.tokens_per_second else "-",
        "seconds": f"{summary.seconds:,.1f}",
        "tables": ", ".join(f"{name}@{versions[name]}" for name, rows in summary.tables.items() if rows),
    }


def format_figure(value: Any) -> str:
    """Format a figure for people: grouped digits, four significant digits, structures as names and values."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        value += 0.0  # no negative zero
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value and all(_HASH.fullmatch(str(inner)) for inner in value.values()):
        return ", ".join(value)  # names are more useful than their hashes
    if isinstance(value, dict):
        parts = {name.replace("_", " "): (format_figure(inner), inner) for name, inner in value.items()}
        return ", ".join(
            f"{name} ({text})" if isinstance(inner, dict | list) else f"{name} {text}"
            for name, (text, inner) in parts.items()
        )
    if isinstance(value, list):
        return ", ".join(map(format_figure, value))
    return str(value)
