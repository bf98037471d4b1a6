"""Which traces are scored already, by which student and which run; each trace is counted once."""

from __future__ import annotations

import json
from collections.abc import Sequence

import polars as pl

from rlt_data.models import ModelIdentity
from rlt_data.stages.runtime.run import StageRun
from rlt_data.stages.score.rows import ScoreKey

ANY_STUDENT = ""


class ScoredTraces:
    """Scores and rejects that exist when a session starts, and the traces that it has counted."""

    def __init__(self, run: StageRun) -> None:
        mine = pl.col("run_id") == run.run_id
        scores = run.written("scores").select("score_id", "trace_id", mine.alias("mine")).collect()
        self._done: set[str] = set(scores.get_column("score_id"))
        self._own: set[str] = set(scores.filter("mine").get_column("score_id"))
        rejects = run.written("rejects").filter(mine).select("key", "content").collect()
        self._rejected = {(key, _read_student(content)) for key, content in rejects.iter_rows()}
        self._counted: set[str] = set(scores.filter("mine").get_column("trace_id"))
        self._counted |= {key for key, _ in self._rejected}

    def count(self, trace_id: str) -> int:
        """Return 1 when a trace is first counted in this run, by any student or session, else 0."""
        if trace_id in self._counted:
            return 0
        self._counted.add(trace_id)
        return 1

    def list_missing(
        self, trace_ids: Sequence[str], students: Sequence[ModelIdentity], key: ScoreKey
    ) -> dict[tuple[str, ...], list[str]]:
        """List traces by the names of the students that have neither scored nor rejected them."""
        missing: dict[tuple[str, ...], list[str]] = {}
        for trace_id in trace_ids:
            if (trace_id, ANY_STUDENT) in self._rejected:
                continue
            names = tuple(
                student.name
                for student in students
                if key.make_id(trace_id, student) not in self._done
                and (trace_id, student.name) not in self._rejected
            )
            if names:
                missing.setdefault(names, []).append(trace_id)
        return missing

    def count_scored_by_others(
        self, trace_ids: Sequence[str], students: Sequence[ModelIdentity], key: ScoreKey
    ) -> int:
        """Count the traces whose every score was committed by another run before this session."""
        others = self._done - self._own
        return sum(
            all(key.make_id(trace_id, student) in others for student in students) for trace_id in trace_ids
        )


def _read_student(content: str | None) -> str:
    """Read which student a trace was rejected for; an empty name means all of them."""
    return str(json.loads(content).get("student", ANY_STUDENT)) if content else ANY_STUDENT
