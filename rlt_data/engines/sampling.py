"""Seeded sampling: a draw depends only on the row's own seed and step, never on the other rows.

A token is drawn by the Gumbel-max rule: the largest of `logit / temperature + noise`, where the noise of
each token is a hash of (seed, step, token id). Compared with inverting the cumulative distribution, the
winner changes under float rounding only where two tokens nearly tie, however flat the distribution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rlt_data.engines.base import SamplingParameters

# SplitMix64 (Steele, Lea and Flood 2014), as signed 64-bit constants; products wrap.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)
# Tokens this far below the best, in nats, are not drawn: together below 2e-8 for a vocabulary of 200k.
_NEGLIGIBLE = 30.0
_NOISE_ELEMENTS = 1 << 22
# On a CPU, drawing among gathered candidates is faster while they are less than this share.
_SPARSE_BELOW = 0.25


def sample_tokens(
    logits: torch.Tensor, seeds: Sequence[int], steps: Sequence[int], sampling: SamplingParameters
) -> tuple[list[int], list[float]]:
    """Sample one token per row.

    `logits` is `[rows, vocabulary]`; `seeds` and `steps` hold one integer per row (`steps` counts the tokens
    already sampled). Returns token ids and their log-probabilities in nats, under the temperature and over
    the whole vocabulary, before top-k and top-p; at temperature 0 (greedy) they are those of temperature 1.
    Raises `FloatingPointError` where logits are not finite.
    """
    if logits.device.type == "mps":
        logits = logits.cpu()  # MPS has no float64
    scaled = logits.float()
    if sampling.temperature > 0 and sampling.temperature != 1:
        scaled = scaled / sampling.temperature
    normalizer = torch.logsumexp(scaled, dim=-1)
    if not bool(torch.isfinite(normalizer).all()):
        raise FloatingPointError("the model's logits are not finite")
    if sampling.temperature == 0:
        chosen = scaled.argmax(dim=-1)
    else:
        chosen = _draw(_filter_tokens(scaled, sampling), seeds, steps)
    logprobs = scaled.gather(1, chosen.unsqueeze(1)).squeeze(1) - normalizer
    return chosen.tolist(), logprobs.tolist()


def _filter_tokens(scaled: torch.Tensor, sampling: SamplingParameters) -> torch.Tensor:
    """Set logits `[rows, vocabulary]` that may not be drawn to -inf: top-k first, then top-p of the rest."""
    allowed = scaled > scaled.max(dim=-1, keepdim=True).values - _NEGLIGIBLE
    if 0 < sampling.top_k < scaled.shape[1]:
        allowed &= scaled >= scaled.topk(sampling.top_k, dim=-1).values[:, -1:]
    if sampling.top_p < 1:
        kept = scaled.masked_fill(~allowed, -torch.inf)
        ordered, order = kept.sort(dim=-1, descending=True, stable=True)
        mass = ordered.softmax(dim=-1, dtype=torch.float64)
        before = mass.cumsum(dim=-1) - mass
        allowed &= torch.zeros_like(allowed).scatter(1, order, before < sampling.top_p)
    return scaled.masked_fill(~allowed, -torch.inf)


def _draw(scaled: torch.Tensor, seeds: Sequence[int], steps: Sequence[int]) -> torch.Tensor:
    """Draw one token id per row from logits `scaled`; -inf is never drawn."""
    seed = torch.tensor(seeds, dtype=torch.int64, device=scaled.device)
    step = torch.tensor(steps, dtype=torch.int64, device=scaled.device)
    streams = _mix(_mix(seed) + step * _GOLDEN)
    rows_at_once = max(1, _NOISE_ELEMENTS // scaled.shape[1])
    chosen = []
    for part, stream in zip(scaled.split(rows_at_once), streams.split(rows_at_once), strict=True):
        sparse = part.device.type == "cpu" and int((part > -torch.inf).sum()) < part.numel() * _SPARSE_BELOW
        chosen.append(_draw_sparse(part, stream) if sparse else _draw_dense(part, stream))
    return torch.cat(chosen)


def _draw_dense(scaled: torch.Tensor, streams: torch.Tensor) -> torch.Tensor:
    tokens = torch.arange(scaled.shape[1], device=scaled.device)
    return (scaled + make_gumbel_noise(streams.unsqueeze(1), tokens.unsqueeze(0))).argmax(dim=-1)


def _draw_sparse(scaled: torch.Tensor, streams: torch.Tensor) -> torch.Tensor:
    """Compute noise only for tokens that may be drawn: the same result as the dense draw, less arithmetic."""
    rows, tokens = torch.nonzero(scaled > -torch.inf, as_tuple=True)
    keys = torch.full(scaled.shape, -torch.inf, dtype=torch.float64)
    keys[rows, tokens] = scaled[rows, tokens] + make_gumbel_noise(streams[rows], tokens)
    return keys.argmax(dim=-1)


def make_gumbel_noise(streams: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Make standard Gumbel noise (float64) from hashes of stream and token id, int64, broadcast together."""
    bits = _mix(streams + (tokens + 1) * _GOLDEN)
    uniform = (_shift_right(bits, 11).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform))


def _mix(value: torch.Tensor) -> torch.Tensor:
    value = (value ^ _shift_right(value, 30)) * _MIX_1
    value = (value ^ _shift_right(value, 27)) * _MIX_2
    return value ^ _shift_right(value, 31)


def _shift_right(value: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift right logically; int64 tensors offer only the arithmetic shift."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)
