"""`AnswerVerifier`: compare answers with the true ones, using math-verify in processes that can be killed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType

from rlt_data.errors import require_module
from rlt_data.tasks.grading.base import Verdict
from rlt_data.tasks.grading.math.comparison import Kind, compare_answers
from rlt_data.tasks.grading.math.limits import OverLimitError
from rlt_data.tasks.grading.pool import Reply, WorkerPool


@dataclass(frozen=True)
class Comparison:
    """The verdict on one pair, and a sentence where the comparison gave no result."""

    verdict: Verdict
    detail: str | None = None


class AnswerVerifier:
    """Compares answers in up to `processes` children, each pair within `seconds`. Use as a context manager.

    Raises `MissingExtraError` where math-verify is not installed.
    """

    def __init__(self, *, seconds: float = 5.0, processes: int | None = None) -> None:
        require_module("math_verify", "verify")
        self._pool = WorkerPool(
            "rlt_data.tasks.grading.math.symbolic:compare_pair", seconds=seconds, processes=processes
        )

    def __enter__(self) -> AnswerVerifier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the children."""
        self._pool.close()

    def verify(
        self, pairs: Iterable[tuple[str | None, str | None]], *, on_done: Callable[[], None] | None = None
    ) -> list[Verdict]:
        """Compare (true answer, given answer) pairs; the verdicts come in the order of the pairs."""
        return [comparison.verdict for comparison in self.compare(pairs, on_done=on_done)]

    def compare(
        self, pairs: Iterable[tuple[str | None, str | None]], *, on_done: Callable[[], None] | None = None
    ) -> list[Comparison]:
        """Compare (true answer, given answer) pairs; the results come in the order of the pairs.

        Texts and numbers are compared without a child. A missing answer is `no_answer`; `timed_out` and
        `failed` (a limit exceeded, out of memory, a crash) mean that the comparison gave no result.
        `on_done` is called after every pair. Raises `ModelError` where a child cannot start.
        """
        results: list[Comparison | None] = []
        open_pairs: dict[int, tuple[str, str]] = {}
        for index, (true, answer) in enumerate(pairs):
            if not true or not answer or not true.strip() or not answer.strip():
                results.append(Comparison("no_answer"))
            elif (decided := _decide_quickly(true, answer)) is not None:
                results.append(decided)
            else:
                results.append(None)
                open_pairs[index] = (true, answer)
                continue
            if on_done:
                on_done()
        replies = self._pool.run(list(open_pairs.values()), on_done=on_done)
        for index, reply in zip(open_pairs, replies, strict=True):
            results[index] = _read_comparison(reply)
        return [result for result in results if result is not None]


class _UndecidedError(Exception):
    """A comparison needs algebra."""


def _decide_quickly(true: str, answer: str) -> Comparison | None:
    """Compare two answers where no algebra is needed: equal texts, numbers, lists of them."""
    if true.strip() == answer.strip():
        return Comparison("correct")
    try:
        return Comparison("correct" if compare_answers(true, answer, _leave_undecided) else "wrong")
    except OverLimitError as error:
        return Comparison("failed", str(error))
    except _UndecidedError:
        return None


def _leave_undecided(kind: Kind, true: str, given: str) -> bool:
    raise _UndecidedError


def _read_comparison(reply: Reply) -> Comparison:
    if reply.failure is not None:
        return Comparison(reply.failure, reply.detail)
    if isinstance(reply.value, str):
        return Comparison("failed", reply.value)
    return Comparison("correct" if reply.value else "wrong")
