"""Examples that are longer than a limit: kept whole, dropped or replaced, and never truncated."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from rich.table import Table

from rlt_data.console import VisibleConsole, make_cell
from rlt_data.stages.runtime.run import StageRun

_SHOWN = 20


@dataclass(frozen=True)
class OverLong:
    """One example beyond the limit; `replaced_by` is the trace that is learned from instead."""

    key: str
    question_id: str
    trace_id: str
    tokens: int
    limit: int
    reward: float | None
    kept: bool = False
    replaced_by: str | None = None

    @property
    def fate(self) -> str:
        """What became of it, in words."""
        if self.kept:
            return "kept whole"
        return f"replaced by {self.replaced_by}" if self.replaced_by else "dropped"

    def to_json(self) -> str:
        """Return what was lost as a JSON object."""
        return json.dumps(
            {name: value for name, value in asdict(self).items() if name not in ("key", "kept")}
        )


def record_over_long(run: StageRun, table: str, found: Sequence[OverLong], *, content: bool) -> None:
    """Write what was lost to `rejects`, its figures to the summary, and the beginning of it to stderr.

    A reject's detail is a sentence; with `content` its content is the example as a JSON object.
    """
    if not found:
        return
    lost = [example for example in found if not example.kept]
    replaced = [example for example in lost if example.replaced_by]
    for example in lost:
        what = f"the text has {example.tokens} tokens, the limit is {example.limit}"
        run.reject(
            source=table,
            reason="over_length",
            detail=what if example.replaced_by is None else f"{what}: {example.fate}",
            key=example.key,
            content=example.to_json() if content else None,
        )
    run.summary.extra["over_long"] = {
        "texts": len(found),
        "kept": len(found) - len(lost),
        "replaced": len(replaced),
        "dropped": len(lost) - len(replaced),
        "tokens dropped": sum(example.tokens for example in lost if not example.replaced_by),
        "longest": max(example.tokens for example in found),
    }
    if not run.reporter.quiet:
        VisibleConsole(stderr=True).print(_draw(found))


def _draw(found: Sequence[OverLong]) -> Table:
    worst = sorted(found, key=lambda example: (-example.tokens, example.key))
    more = f"; the longest {_SHOWN} of them, the others are in rejects" if len(found) > _SHOWN else ""
    table = Table(title=f"{len(found):,} texts are longer than the limit{more}", title_justify="left")
    for name in ("question", "tokens", "limit", "reward", "now"):
        table.add_column(name, justify="right" if name in ("tokens", "limit", "reward") else "left")
    for example in worst[:_SHOWN]:
        table.add_row(
            make_cell(example.question_id[:12]),
            make_cell(f"{example.tokens:,}"),
            make_cell(f"{example.limit:,}"),
            make_cell("-" if example.reward is None else f"{example.reward:.4g}"),
            make_cell(example.fate),
        )
    return table
