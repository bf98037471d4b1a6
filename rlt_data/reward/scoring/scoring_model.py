"""One model run over scoring texts: texts in, rows of hidden states out, in passes that fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, assert_never

import torch
from torch import Tensor

from rlt_data.errors import ModelError
from rlt_data.reward.forward.backbone import Mode, iterate_hidden
from rlt_data.reward.forward.head import AnyHead, LogitsHead, read_head
from rlt_data.reward.forward.memory import Sizes, TileSize
from rlt_data.reward.forward.packing import PackItem
from rlt_data.reward.forward.probe import choose_mode
from rlt_data.reward.scoring.texts import ScoringText


@dataclass(frozen=True)
class ScoringModel:
    """A loaded teacher or student: any transformers causal language model and its fast tokenizer.

    Logits are divided by `temperature`.
    """

    name: str
    model: Any
    tokenizer: Any
    temperature: float = 0.7


@dataclass(frozen=True)
class ScoredRows:
    """Hidden states that predict the scored tokens of several texts.

    hidden [rows, hidden], targets [rows]; `text_rows` holds the index of each text and its rows,
    explanation first, then solution.
    """

    hidden: Tensor
    targets: Tensor
    text_rows: list[tuple[int, slice]]


class ModelRunner:
    """Runs one model over scoring texts. Out of memory, it halves the pass and tries again.

    A probe chooses `mode` unless it is given; `note` explains the cost of a mode other than `packed`.
    """

    def __init__(
        self,
        scoring: ScoringModel,
        sizes: Sizes,
        *,
        share_prefixes: bool = True,
        mode: Mode | None = None,
    ) -> None:
        self.scoring = scoring
        self.pack_tokens = sizes.pack_tokens
        self.tile = sizes.tile
        self.mode, self.note = (mode, None) if mode is not None else choose_mode(scoring.model)
        self.share_prefixes = share_prefixes

    @property
    def context(self) -> int | None:
        """The longest text that the model accepts, tokens; None if its configuration does not state it."""
        config = self.scoring.model.config
        return getattr(config.get_text_config(), "max_position_embeddings", None)

    def read_head(self) -> AnyHead:
        """Read the current output layer: a policy in training changes between calls."""
        model, temperature = self.scoring.model, self.scoring.temperature
        match self.mode:
            case "packed" | "padded":
                return read_head(model, temperature)
            case "dense":
                return LogitsHead(model.config.get_text_config().vocab_size, temperature)
            case _:
                assert_never(self.mode)

    def score(self, texts: Sequence[ScoringText | None], consume: Callable[[ScoredRows], None]) -> None:
        """Run every text that is not None and pass its rows to `consume`, some texts at a time.

        Raises `ModelError` where a single text does not fit in memory.
        """
        waiting = {
            index: PackItem(index, text.token_ids, text.first_scored)
            for index, text in enumerate(texts)
            if text is not None and (text.think or text.solution)
        }
        with torch.no_grad(), _evaluate(self.scoring.model):
            while waiting:
                try:
                    for rows in self._iterate(list(waiting.values()), texts):
                        consume(rows)
                        for index, _ in rows.text_rows:
                            del waiting[index]
                except (RuntimeError, MemoryError) as error:
                    if not _is_out_of_memory(error):
                        raise
                    self._shrink(error, waiting)

    def _iterate(
        self, items: Sequence[PackItem], texts: Sequence[ScoringText | None]
    ) -> Iterator[ScoredRows]:
        passes = iterate_hidden(
            self.scoring.model,
            items,
            self.pack_tokens,
            mode=self.mode,
            share_prefixes=self.share_prefixes,
        )
        for hidden, found in passes:
            rows: list[int] = []
            targets: list[int] = []
            text_rows: list[tuple[int, slice]] = []
            for index, start, offset in found:
                text = texts[index]
                assert text is not None
                begin = len(rows)
                for span in (text.think, text.solution):
                    # A token is predicted from the hidden state of the token before it.
                    rows.extend(range(start + span.start - 1 - offset, start + span.stop - 1 - offset))
                    targets.extend(text.token_ids[span.start : span.stop])
                text_rows.append((index, slice(begin, len(rows))))
            device = hidden.device
            picked = hidden.index_select(0, torch.tensor(rows, dtype=torch.long, device=device))
            yield ScoredRows(picked, torch.tensor(targets, dtype=torch.long, device=device), text_rows)

    def _shrink(self, error: Exception, waiting: dict[int, PackItem]) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        longest = max(len(item.token_ids) for item in waiting.values())
        if self.pack_tokens <= longest // 2 and self.tile.rows <= 32:
            raise ModelError(
                f"out of memory with a single text of {longest} tokens",
                where=self.scoring.name,
                remedy="score on a machine with more memory, or exclude such texts with --where",
            ) from error
        self.pack_tokens = max(1, self.pack_tokens // 2)
        self.tile = TileSize(max(32, self.tile.rows // 2), self.tile.entries)


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return "can't allocate memory" in text or "not enough memory" in text


@contextmanager
def _evaluate(model: Any) -> Iterator[None]:
    """Switch to evaluation mode while scoring: a policy in training has dropout on."""
    training = model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()
