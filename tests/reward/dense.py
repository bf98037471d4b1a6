"""A plain float64 computation over whole logits, which every mode of the scorer must equal."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch


def compute_logprobs(model: Any, token_ids: Sequence[int], temperature: float) -> torch.Tensor:
    """Log-softmax of every position in float64: [tokens - 1, vocabulary]."""
    exact = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        logits = exact(input_ids=torch.tensor([list(token_ids) or [0]])).logits[0, :-1]
    return torch.log_softmax(logits.double() / temperature, dim=-1)


def pick_logprobs(logprobs: torch.Tensor, token_ids: Sequence[int], span: range) -> torch.Tensor:
    """Log-probability of each token of `span`."""
    return torch.stack([logprobs[t - 1, token_ids[t]] for t in span]) if span else torch.empty(0)


def pick_divergences(
    teacher: torch.Tensor, student: torch.Tensor, taught: range, read: range
) -> torch.Tensor:
    """KL(teacher || student) at each explanation token."""
    pairs = [(teacher[a - 1], student[b - 1]) for a, b in zip(taught, read, strict=True)]
    return torch.stack([(a.exp() * (a - b)).sum() for a, b in pairs]) if pairs else torch.empty(0)
