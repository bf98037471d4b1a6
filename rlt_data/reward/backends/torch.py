"""Log-probabilities of given texts from our own forward passes, for a teacher whose students are served."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rlt_data.reward.backends.base import BackendFailure
from rlt_data.reward.forward.head import score_targets
from rlt_data.reward.forward.memory import choose_sizes, read_shape
from rlt_data.reward.scoring.scoring_model import ModelRunner, ScoredRows, ScoringModel
from rlt_data.reward.scoring.texts import ScoringText

_TEXTS_AT_ONCE = 64


class TorchBackend:
    """Scores texts with a loaded model; see `LogprobBackend`."""

    def __init__(self, scoring: ScoringModel, *, memory: int | None = None) -> None:
        self.name = scoring.name
        self.tokenizer = scoring.tokenizer
        sizes = choose_sizes(
            [read_shape(scoring.model)], budget=memory, exact=False, device=scoring.model.device.type
        )
        self._runner = ModelRunner(scoring, sizes)
        self.context = self._runner.context

    def score(
        self, texts: Iterable[tuple[str, list[int]]]
    ) -> Iterator[tuple[str, list[float] | BackendFailure]]:
        """Score texts in batches."""
        batch: list[tuple[str, list[int]]] = []
        for text in texts:
            batch.append(text)
            if len(batch) == _TEXTS_AT_ONCE:
                yield from self._score_batch(batch)
                batch = []
        yield from self._score_batch(batch)

    def close(self) -> None:
        """Keep the model: it belongs to the caller."""

    def _score_batch(self, batch: list[tuple[str, list[int]]]) -> Iterator[tuple[str, list[float]]]:
        if not batch:
            return
        texts = [ScoringText(ids, len(ids), range(1, len(ids)), range(0), [], []) for _, ids in batch]
        head = self._runner.read_head()
        scores: dict[int, list[float]] = {}

        def consume(scored: ScoredRows) -> None:
            values = score_targets(scored.hidden, head, scored.targets, self._runner.tile).cpu()
            for index, part in scored.text_rows:
                scores[index] = values[part].tolist()

        self._runner.score(texts, consume)
        for index, (key, _) in enumerate(batch):
            yield key, scores[index]
