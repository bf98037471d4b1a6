"""Which questions and traces stand already, in the lake or earlier in the source; held as hashes alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from rlt_data.sources.identity import normalize_text

Comparison = Literal["new", "same", "differs"]

_MASK = 2**64 - 1


class ExistingQuestions:
    """Question ids with a fingerprint of solution and answer: about 200 bytes a question.

    The fingerprints are Python's own hashes of the texts: good within this process, which is where they
    are made and compared.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._known)

    def add(self, question_id: str, solution: str, answer: str | None, *, rendered: bool) -> None:
        """Remember a question that stands."""
        self._known[_shorten(question_id)] = _pack(solution, answer, rendered=rendered)

    def compare(
        self, question_id: str, solution: str | None, answer: str | None, *, rendered: bool
    ) -> Comparison:
        """Say whether the question is new, and if not, whether its solution is the same.

        A solution that was rendered from an answer is compared by that answer; a row that knows no solution
        differs from nothing.
        """
        standing = self._known.get(_shorten(question_id))
        if standing is None:
            return "new"
        if solution is None:
            return "same"
        mine = _pack(solution, answer, rendered=rendered)
        solutions, answers = (standing >> 64, mine >> 64), (standing & _MASK, mine & _MASK)
        if all(solutions):
            return "same" if solutions[0] == solutions[1] else "differs"
        return "same" if answers[0] == answers[1] or not all(answers) else "differs"


class ExistingTraces:
    """Trace ids that stand already, and how many traces of each question this source brought so far."""

    def __init__(self, trace_ids: Iterable[str] = ()) -> None:
        self._known = {_shorten(trace_id) for trace_id in trace_ids}
        self._counts: dict[bytes, int] = {}

    def add(self, trace_id: str, question_id: str) -> int | None:
        """Remember a trace and return its sample index; None where it stands already."""
        key, question = _shorten(trace_id), _shorten(question_id)
        if key in self._known:
            return None
        self._known.add(key)
        index = self._counts.get(question, 0)
        self._counts[question] = index + 1
        return index


def _shorten(key: str) -> bytes:
    """Halve a content hash: these are held by the million."""
    try:
        return bytes.fromhex(key)
    except ValueError:
        return key.encode()


def _pack(solution: str, answer: str | None, *, rendered: bool) -> int:
    """Pack two hashes into one integer: solution (0 where rendered), answer (0 where unknown)."""
    first = 0 if rendered else hash(normalize_text(solution)) & _MASK
    second = hash(normalize_text(answer)) & _MASK if answer else 0
    return first << 64 | second
