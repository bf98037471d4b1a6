"""Questions and traces that exist already, in the lake or earlier in the source; held as hashes alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from rlt_data.sources.identity import normalize_text

Comparison = Literal["new", "same", "differs"]

_MASK = 2**64 - 1


class ExistingQuestions:
    """Question ids with a fingerprint of solution and answer: about 200 bytes per question.

    The fingerprints are Python's own hashes of the texts, which are valid within one process only: they
    are made and compared in the same one.
    """

    def __init__(self) -> None:
        self._fingerprints: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._fingerprints)

    def add(self, question_id: str, solution: str, answer: str | None, *, rendered: bool) -> None:
        """Add a question. `rendered` marks a solution that was rendered from the answer."""
        self._fingerprints[_shorten(question_id)] = _pack(solution, answer, rendered=rendered)

    def compare(
        self, question_id: str, solution: str | None, answer: str | None, *, rendered: bool
    ) -> Comparison:
        """Return `new` for a new question; else whether its solution is the `same` or `differs`.

        A rendered solution is compared by the answer it was rendered from. A row without a solution
        counts as the same.
        """
        existing = self._fingerprints.get(_shorten(question_id))
        if existing is None:
            return "new"
        if solution is None:
            return "same"
        given = _pack(solution, answer, rendered=rendered)
        solutions, answers = (existing >> 64, given >> 64), (existing & _MASK, given & _MASK)
        if all(solutions):
            return "same" if solutions[0] == solutions[1] else "differs"
        return "same" if answers[0] == answers[1] or not all(answers) else "differs"


class ExistingTraces:
    """Trace ids that exist, and how many traces of each question this source has added so far."""

    def __init__(self, trace_ids: Iterable[str] = ()) -> None:
        self._ids = {_shorten(trace_id) for trace_id in trace_ids}
        self._counts: dict[bytes, int] = {}

    def add(self, trace_id: str, question_id: str) -> int | None:
        """Add a trace and return its sample index; None where the trace exists already."""
        key, question = _shorten(trace_id), _shorten(question_id)
        if key in self._ids:
            return None
        self._ids.add(key)
        index = self._counts.get(question, 0)
        self._counts[question] = index + 1
        return index


def _shorten(key: str) -> bytes:
    """Halve the size of a content hash: millions of them are held."""
    try:
        return bytes.fromhex(key)
    except ValueError:
        return key.encode()


def _pack(solution: str, answer: str | None, *, rendered: bool) -> int:
    """Pack two hashes into one integer: solution (0 where rendered), answer (0 where unknown)."""
    first = 0 if rendered else hash(normalize_text(solution)) & _MASK
    second = hash(normalize_text(answer)) & _MASK if answer else 0
    return first << 64 | second
