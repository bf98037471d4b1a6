"""Filters: which traces are ranked at all. They combine with each other and with any policy.

- `closed`: the thinking opens and closes exactly once and is not blank (`traces.state`).
- `complete`: the completion was not truncated at the length limit.
- `no-loop`: the thinking does not end in a loop, one passage repeated over and over.
- `correct`: the trace's own answer verifies against the true one.

The last two read the texts; the others cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, assert_never, get_args

import polars as pl

from rlt_data.stages.runtime.run import StageRun
from rlt_data.tasks.answers import extract_answer
from rlt_data.tasks.extraction import extract_trace_answer
from rlt_data.tasks.grading.math.verifier import AnswerVerifier

FilterName = Literal["closed", "complete", "no-loop", "correct"]
FILTER_NAMES: tuple[FilterName, ...] = get_args(FilterName)

BATCH = 2_000
LOOP_TAIL = 4_000
LOOP_LENGTH = 300
LOOP_REPEATS = 4


def filter_traces(
    run: StageRun,
    candidates: pl.DataFrame,
    filters: Sequence[FilterName],
    *,
    seconds: float,
    processes: int | None,
) -> pl.DataFrame:
    """Keep the candidates (`trace_id`, `question_id`, `state`, `truncated`) that pass every filter.

    The filters apply in the order of `FILTER_NAMES`, cheap ones first; the summary counts what each of them
    dropped, as `left_out_NAME`.
    """
    kept = candidates
    for name in (name for name in FILTER_NAMES if name in filters):
        before = kept.height
        match name:
            case "closed":
                kept = kept.filter(pl.col("state") == "closed")
            case "complete":
                kept = kept.filter(~pl.col("truncated"))
            case "no-loop":
                kept = kept.filter(pl.col("trace_id").is_in(_find_unlooped(run, kept)))
            case "correct":
                kept = kept.filter(pl.col("trace_id").is_in(_find_correct(run, kept, seconds, processes)))
            case _:
                assert_never(name)
        run.count(**{f"left_out_{name.replace('-', '_')}": before - kept.height})
    return kept


def ends_in_loop(text: str) -> bool:
    """Return whether `text` ends in one passage repeated at least four times over 300 or more characters."""
    tail = text.rstrip()[-LOOP_TAIL:][::-1]
    # The border of a prefix of the reversed tail gives the period of that end of the text.
    borders = [0] * len(tail)
    border = 0
    for i in range(1, len(tail)):
        while border and tail[i] != tail[border]:
            border = borders[border - 1]
        border += tail[i] == tail[border]
        borders[i] = border
        length, period = i + 1, i + 1 - border
        if length >= LOOP_LENGTH and length >= LOOP_REPEATS * period:
            return True
    return False


def _find_unlooped(run: StageRun, traces: pl.DataFrame) -> set[str]:
    passing: set[str] = set()
    with run.track("look for loops", traces.height, unit="traces") as task:
        for texts in _read_texts(run, traces):
            passing |= {str(row["trace_id"]) for row in texts if not ends_in_loop(row["think"] or "")}
            task.advance(len(texts))
    return passing


def _find_correct(run: StageRun, traces: pl.DataFrame, seconds: float, processes: int | None) -> set[str]:
    passing: set[str] = set()
    with (
        AnswerVerifier(seconds=seconds, processes=processes) as verifier,
        run.track("check answers", traces.height, unit="traces") as task,
    ):
        for texts in _read_texts(run, traces):
            truth = _read_true_answers(run, {row["question_id"] for row in texts})
            pairs = [
                (
                    truth.get(row["question_id"]),
                    extract_trace_answer(row["trace_solution"], row["think"], row["completion"]),
                )
                for row in texts
            ]
            verdicts = verifier.verify(pairs, on_done=task.advance)
            for row, verdict in zip(texts, verdicts, strict=True):
                run.count(**{f"answers_{verdict}": 1})
                if verdict == "correct":
                    passing.add(str(row["trace_id"]))
    return passing


def _read_true_answers(run: StageRun, question_ids: set[str | None]) -> dict[str | None, str | None]:
    questions = run.read("questions").filter(pl.col("question_id").is_in(question_ids))
    rows = questions.select("question_id", "answer", "solution").collect().iter_rows(named=True)
    return {row["question_id"]: row["answer"] or extract_answer(row["solution"]) for row in rows}


def _read_texts(run: StageRun, traces: pl.DataFrame) -> Iterator[list[dict[str, str | None]]]:
    columns = ["trace_id", "question_id", "trace_solution", "think", "completion"]
    for batch in traces.iter_slices(BATCH):
        ids = batch.get_column("trace_id").to_list()
        yield run.read("traces").filter(pl.col("trace_id").is_in(ids)).select(columns).collect().to_dicts()
