"""The counts of a run over all of its sessions.

What a stage counts is committed together with the rows concerned, as metadata of the same commit; so a
session that is killed leaves counts and rows that agree.
"""

from __future__ import annotations

import json
import time
from collections import Counter

from rlt_data.stages.runtime.contract import StageSummary

COUNTS_KEY = "rlt_data.counts"
_SECONDS = "seconds"
# Older commits have `rows_in` too, counted before the rows that it belonged to were made.
_INPUTS = "inputs"
_OWN_FIELDS = frozenset({"rows_in", "rows_out", "truncated", "tokens"})


class Counters:
    """Adds up counts within a session, and over sessions.

    `repeats` is that of the declaration: a session that processes all inputs again counts everything itself.
    """

    def __init__(self, *, repeats: bool = True) -> None:
        self._repeats = repeats
        self._session: Counter[str] = Counter()
        self._unattached: Counter[str] = Counter()
        self._pending: dict[str, Counter[str]] = {}
        self._carried: Counter[str] = Counter()
        self._opened = self._committed_until = time.monotonic()

    def add(self, numbers: dict[str, float]) -> None:
        """Add numbers by name."""
        self._session.update(numbers)
        self._unattached.update(numbers)

    def attach(self, table: str) -> None:
        """Note that what was counted since the last call belongs to rows that are appended to `table` now."""
        self._pending.setdefault(table, Counter()).update(self._unattached)
        self._unattached.clear()

    def describe_pending(self, table: str) -> str:
        """Return what was counted for a table's rows since its last commit as JSON, for the next one."""
        elapsed = time.monotonic() - self._committed_until
        pending = Counter(self._pending.get(table, Counter()))
        inputs = pending.pop("rows_in", 0)
        return json.dumps({**pending, _INPUTS: inputs, _SECONDS: round(elapsed, 3)}, sort_keys=True)

    def mark_committed(self, table: str) -> None:
        """Note that the numbers pending for a table are committed."""
        self._pending.pop(table, None)
        self._committed_until = time.monotonic()

    def carry(self, numbers: str, rows: int) -> None:
        """Add the numbers of an earlier session's commit of `rows` rows, as `describe_pending` wrote them."""
        counted = json.loads(numbers)
        counted["rows_in"] = counted.pop(_INPUTS, rows)
        self._carried.update(counted)

    def fill(self, summary: StageSummary, tables: dict[str, int], *, rejects: str) -> None:
        """Fill a summary with the numbers of the whole run; `tables` are its rows by table."""
        totals = Counter(self._session)
        if not self._repeats:
            totals.update({name: number for name, number in self._carried.items() if name != _SECONDS})
        summary.tables = {name: rows for name, rows in tables.items() if name != rejects or rows}
        summary.rejected = tables.get(rejects, 0)
        summary.rows_out = sum(rows for name, rows in tables.items() if name != rejects)
        summary.rows_in = int(totals["rows_in"])
        summary.truncated = int(totals["truncated"])
        first = next((rows for name, rows in tables.items() if name != rejects), 0)
        summary.truncated_share = summary.truncated / first if first else 0.0
        summary.tokens = int(totals["tokens"])
        summary.seconds = self._carried[_SECONDS] + time.monotonic() - self._opened
        summary.tokens_per_second = summary.tokens / summary.seconds if summary.seconds else 0.0
        others = {name: number for name, number in totals.items() if name not in _OWN_FIELDS}
        summary.extra = {**summary.extra, **others}
