"""The numbers of a run over all of its legs: what a stage counts, what was committed with rows, time.

A leg is one process at work on the run. Numbers that a stage counts are committed with the rows that they
belong to, as metadata of the same commit; so a leg that is killed leaves numbers and rows that agree.
"""

from __future__ import annotations

import json
import time
from collections import Counter

from rlt_data.stages.runtime.contract import StageSummary

COUNTS_KEY = "rlt_data.counts"
_SECONDS = "seconds"
_OWN_FIELDS = frozenset({"rows_in", "rows_out", "truncated", "tokens"})


class Tally:
    """Adds numbers up within a leg, and over legs."""

    def __init__(self) -> None:
        self._leg: Counter[str] = Counter()
        self._loose: Counter[str] = Counter()
        self._pending: dict[str, Counter[str]] = {}
        self._carried: Counter[str] = Counter()
        self._opened = self._committed_until = time.monotonic()

    def add(self, numbers: dict[str, float]) -> None:
        """Add numbers by name."""
        self._leg.update(numbers)
        self._loose.update(numbers)

    def attach(self, table: str) -> None:
        """Note that what was counted since the last call belongs to rows that are appended to `table` now."""
        self._pending.setdefault(table, Counter()).update(self._loose)
        self._loose.clear()

    def describe_pending(self, table: str) -> str:
        """Return what was counted for a table's rows since its last commit as JSON, for the next one."""
        elapsed = time.monotonic() - self._committed_until
        pending = self._pending.get(table, Counter())
        return json.dumps({**pending, _SECONDS: round(elapsed, 3)}, sort_keys=True)

    def mark_committed(self, table: str) -> None:
        """Note that the numbers pending for a table stand in a commit now."""
        self._pending.pop(table, None)
        self._committed_until = time.monotonic()

    def carry(self, numbers: str) -> None:
        """Take over the numbers of a commit of an earlier leg, as `describe_pending` wrote them."""
        self._carried.update(json.loads(numbers))

    def fill(
        self,
        summary: StageSummary,
        tables: dict[str, int],
        *,
        rejects: str,
        earlier_rows: int,
        dropped_rows: int,
        redone: bool,
    ) -> None:
        """Fill a summary with the numbers of the whole run.

        `tables` are this run's rows by table. `earlier_rows` of them are from earlier legs, and
        `dropped_rows` of those were made again and dropped in this one: the rest of them were inputs that
        this leg did not take up. A leg that made rows again (`redone`) has counted everything itself; one
        that went on with what was left adds to what earlier legs counted.
        """
        totals = Counter(self._leg)
        if not redone:
            totals.update({name: number for name, number in self._carried.items() if name != _SECONDS})
        summary.tables = {name: rows for name, rows in tables.items() if name != rejects or rows}
        summary.rejected = tables.get(rejects, 0)
        summary.rows_out = sum(rows for name, rows in tables.items() if name != rejects)
        summary.rows_in = int(self._leg["rows_in"]) + earlier_rows - dropped_rows
        summary.truncated = int(totals["truncated"])
        summary.truncated_share = summary.truncated / summary.rows_out if summary.rows_out else 0.0
        summary.tokens = int(totals["tokens"])
        summary.seconds = self._carried[_SECONDS] + time.monotonic() - self._opened
        summary.tokens_per_second = summary.tokens / summary.seconds if summary.seconds else 0.0
        others = {name: number for name, number in totals.items() if name not in _OWN_FIELDS}
        summary.extra = {**summary.extra, **others}
