"""A stage that counts: what the tests of runs and of their rows run."""

from __future__ import annotations

from rlt_data.errors import UsageError
from rlt_data.hashing import hash_content
from rlt_data.lake import Lake
from rlt_data.stages.runtime.contract import FreeField, RunField, StageConfig, StageSummary
from rlt_data.stages.runtime.declaration import StageDeclaration
from rlt_data.stages.runtime.run import Preparation, StageRun
from rlt_data.stages.runtime.starting import start_run

Row = dict[str, object]
COUNT = StageDeclaration("count", "Count.", writes=("questions", "rewards"))
COUNT_MISSING = StageDeclaration("count", "Count.", writes=("questions", "rewards"), repeats=False)


class CountConfig(StageConfig):
    size: RunField[int] = 6
    batch: FreeField[int] = 1


def make_row(number: int) -> Row:
    return {
        "question_id": hash_content(number),
        "question": f"{number}?",
        "solution": str(number),
        "solution_rendered": False,
    }


def start_count(
    lake: Lake,
    config: CountConfig | None = None,
    *,
    force: bool = False,
    declaration: StageDeclaration = COUNT,
) -> StageRun | StageSummary:
    preparation = Preparation(lambda run: None)
    return start_run(lake, declaration, config or CountConfig(), preparation, force=force)


def open_count(
    lake: Lake, config: CountConfig | None = None, *, declaration: StageDeclaration = COUNT
) -> StageRun:
    """Start a run that is not finished yet."""
    run = start_count(lake, config, declaration=declaration)
    assert isinstance(run, StageRun)
    return run


def count_all(
    lake: Lake, config: CountConfig | None = None, *, stop_at: int | None = None, force: bool = False
) -> StageSummary:
    """Go through all numbers again in each session, as a stage does that reads a file."""
    config = config or CountConfig()
    run = start_count(lake, config, force=force)
    if not isinstance(run, StageRun):
        return run
    with run:
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
    """Process only what is left in each session, as a stage does that generates."""
    config = config or CountConfig()
    run = start_count(lake, config, declaration=COUNT_MISSING)
    if not isinstance(run, StageRun):
        return run
    with run:
        done = set(run.written("questions").collect().get_column("question_id"))
        for number in range(config.size):
            if hash_content(number) in done:
                continue
            if number == stop_at:
                raise UsageError("stopped here")
            run.count(rows_in=1, tokens=10, evens=number % 2 == 0)
            run.append("questions", [make_row(number)])
    return run.summary
