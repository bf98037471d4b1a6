"""A stage that counts: what the tests of runs and of their rows run."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import ClassVar

from rlt_data.errors import UsageError
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.stages.runtime.run import StageConfig, StageRun, StageSummary, open_run

Row = dict[str, object]


class CountConfig(StageConfig):
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"batch"})
    size: int = 6
    batch: int = 1


def make_row(number: int) -> Row:
    return {
        "question_id": hash_content(number),
        "question": f"{number}?",
        "solution": str(number),
        "solution_rendered": False,
    }


def open_count(
    lake: Lake, config: CountConfig | None = None, *, force: bool = False, pinned: tuple[str, ...] = ()
) -> AbstractContextManager[StageRun]:
    return open_run(
        lake,
        "count",
        config or CountConfig(),
        inputs=(),
        outputs=("questions", "rewards"),
        pinned=pinned,
        force=force,
    )


def count_all(
    lake: Lake, config: CountConfig | None = None, *, stop_at: int | None = None, force: bool = False
) -> StageSummary:
    """Go through all numbers again in each leg, as a stage does that reads a file."""
    config = config or CountConfig()
    with open_count(lake, config, force=force) as run:
        if run.already_done:
            return run.summary
        for number in range(config.size):
            if number == stop_at:
                raise UsageError("stopped here")
            run.count(rows_in=1, tokens=10, evens=number % 2 == 0)
            if number % 3 == 2:
                run.reject(source="numbers", source_row=number, reason="third", detail="is a third")
            else:
                run.append("questions", [make_row(number)])
    return run.summary


def count_missing(
    lake: Lake, config: CountConfig | None = None, *, stop_at: int | None = None
) -> StageSummary:
    """Take up only what is left in each leg, as a stage does that generates."""
    config = config or CountConfig()
    with open_count(lake, config) as run:
        if run.already_done:
            return run.summary
        done = set(run.written("questions").collect().get_column("question_id"))
        left = [number for number in range(config.size) if hash_content(number) not in done]
        run.count(rows_in=len(left))
        for number in left:
            if number == stop_at:
                raise UsageError("stopped here")
            run.count(tokens=10, evens=number % 2 == 0)
            run.append("questions", [make_row(number)])
    return run.summary
