"""The interface of scoring backends: token ids in, the log-probability of each out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class BackendFailure:
    """One text that a backend cannot score: a reason code and a sentence."""

    reason: str
    detail: str


class LogprobBackend(Protocol):
    """Scores texts under one model, at one temperature, over the whole vocabulary.

    `context` is the maximum length of a text in tokens; None if unknown.
    """

    name: str
    tokenizer: Any
    context: int | None

    def score(
        self, texts: Iterable[tuple[str, list[int]]]
    ) -> Iterator[tuple[str, list[float] | BackendFailure]]:
        """Score `(key, token_ids)` texts; yield, in any order, nats of every token but the first."""
        ...

    def close(self) -> None:
        """Free the model and its engine."""
        ...
