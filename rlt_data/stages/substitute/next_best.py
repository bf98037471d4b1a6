"""The next-best traces of a question, for a selected one that cannot be used, as when it is too long."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Any, TypeVar

import polars as pl

ExampleT = TypeVar("ExampleT")


class NextBestTraces:
    """Traces of a ranking that were not selected, best first within each question; each is tried once.

    `ranking` has the columns question_id, trace_id, rank and selected, sorted by question and rank; `load`
    returns rows of it with their texts.
    """

    def __init__(self, ranking: pl.DataFrame, load: Callable[[pl.DataFrame], list[dict[str, Any]]]) -> None:
        self._ranking = ranking
        self._load = load
        self._tried: set[str] = set()
        self._waiting: dict[str, deque[dict[str, Any]]] = {}

    def open(self, questions: Collection[str]) -> None:
        """Read the texts of the untried traces of these questions, and of no others."""
        self._waiting = {question: deque() for question in questions}
        others = self._ranking.filter(~pl.col("selected") & pl.col("question_id").is_in(list(questions)))
        for row in self._load(others):
            if row["trace_id"] not in self._tried:
                self._waiting[row["question_id"]].append(row)

    def find(self, question: str, measure: Callable[[dict[str, Any]], ExampleT | None]) -> ExampleT | None:
        """Return what `measure` makes of the best untried trace for which it is not None; None without one.

        Whether a trace can be used or not, it is not tried again.
        """
        candidates = self._waiting[question]
        found = None
        while candidates and found is None:
            row = candidates.popleft()
            self._tried.add(row["trace_id"])
            found = measure(row)
        return found
