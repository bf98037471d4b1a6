"""Inside `model.generate`: draws that depend on a row's own seed, not on the batch, and stops at a text.

So a training step samples the same completions in one process or in several, first time or resumed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rlt_data.engines.base import SamplingParameters
from rlt_data.engines.sampling import sample_tokens
from rlt_data.engines.stopping import CompletionReader
from rlt_data.hashing import hash_content


def make_seed(seed: int, place: int, sample: int) -> int:
    """The seed of one completion: of the run's seed, its group's place in the training, and its sample."""
    return int(hash_content("rollout", seed, place, sample)[:15], 16)


class SeededDraws:
    """A logits processor that draws each row's token by its seed and leaves only that token possible.

    With greedy decoding behind it, `model.generate` then writes what was drawn. `logprobs` holds, of each
    step, the drawn tokens' log-probabilities in nats: under the temperature, over the whole vocabulary.
    """

    def __init__(self, seeds: Sequence[int], sampling: SamplingParameters) -> None:
        self.seeds = list(seeds)
        self.sampling = sampling
        self.logprobs: list[list[float]] = []

    def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
        """Draw one token a row from `scores` [rows, vocabulary]; returns 0 there and -inf elsewhere."""
        steps = [len(self.logprobs)] * len(self.seeds)
        tokens, logprobs = sample_tokens(scores, self.seeds, steps, self.sampling)
        self.logprobs.append(logprobs)
        only = torch.full_like(scores, -torch.inf)
        only[torch.arange(len(tokens), device=scores.device), torch.tensor(tokens, device=scores.device)] = 0
        return only

    def list_row(self, row: int, length: int) -> list[float]:
        """The log-probabilities of the first `length` tokens of one row."""
        return [step[row] for step in self.logprobs[:length]]


class StopAtText:
    """A stopping criterion: a row ends where it has written `text`, whatever tokens that takes.

    `lengths` holds, of each row that ended so, the number of its tokens up to there.
    """

    def __init__(self, tokenizer: Any, text: str, *, prompt_length: int) -> None:
        self.reader = CompletionReader(tokenizer, (text,))
        self.prompt_length = prompt_length
        self.lengths: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        """Tell which rows of `input_ids` [rows, tokens] are done; returns a flag a row."""
        written = input_ids[:, self.prompt_length :].tolist()
        for row, ids in enumerate(written):
            if row not in self.lengths and self.reader.ends_here(ids):
                self.lengths[row] = len(ids)
        done = [row in self.lengths for row in range(len(written))]
        return torch.tensor(done, device=input_ids.device)
