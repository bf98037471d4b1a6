"""Sampling inside `model.generate` by a seed per row, independent of the batch, and stopping at a text.

Thus a training step samples the same completions in one process or in several, and again after a resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rlt_data.engines.base import SamplingParameters
from rlt_data.engines.sampling import sample_tokens
from rlt_data.engines.stopping import CompletionReader
from rlt_data.hashing import hash_content


def make_seed(seed: int, group_index: int, sample: int) -> int:
    """Make a completion's seed from the run's seed, its group's index in the training, and its sample."""
    return int(hash_content("rollout", seed, group_index, sample)[:15], 16)


class SeededDraws:
    """A logits processor that draws each row's token by its seed and makes all other tokens impossible.

    With greedy decoding `model.generate` then writes the drawn tokens. `logprobs` holds a list per step: the
    drawn tokens' log-probabilities, nats, under the temperature and over the whole vocabulary.
    """

    def __init__(self, seeds: Sequence[int], sampling: SamplingParameters) -> None:
        self.seeds = list(seeds)
        self.sampling = sampling
        self.logprobs: list[list[float]] = []

    def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
        """Draw a token per row from `scores` [rows, vocabulary]; return 0 at that token, -inf elsewhere."""
        steps = [len(self.logprobs)] * len(self.seeds)
        tokens, logprobs = sample_tokens(scores, self.seeds, steps, self.sampling)
        self.logprobs.append(logprobs)
        only = torch.full_like(scores, -torch.inf)
        only[torch.arange(len(tokens), device=scores.device), torch.tensor(tokens, device=scores.device)] = 0
        return only

    def list_row(self, row: int, length: int) -> list[float]:
        """Return the log-probabilities of the first `length` tokens of one row, nats."""
        return [step[row] for step in self.logprobs[:length]]


class StopAtText:
    """A stopping criterion: a row ends once it contains `text`, in whatever tokens.

    `lengths` holds the number of tokens of each row that ended so.
    """

    def __init__(self, tokenizer: Any, text: str, *, prompt_length: int) -> None:
        self.reader = CompletionReader(tokenizer, (text,))
        self.prompt_length = prompt_length
        self.lengths: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: Any, **options: Any) -> torch.Tensor:
        """Return a flag per row of `input_ids` [rows, tokens]: whether it has ended."""
        written = input_ids[:, self.prompt_length :].tolist()
        for row, ids in enumerate(written):
            if row not in self.lengths and self.reader.ends_here(ids):
                self.lengths[row] = len(ids)
        done = [row in self.lengths for row in range(len(written))]
        return torch.tensor(done, device=input_ids.device)
