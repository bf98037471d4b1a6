"""From hidden states to token log-probabilities and exact divergences, a tile of logits at a time.

Only one tile of logits (rows x vocabulary entries) is held: log-sum-exp and the divergence are accumulated
over vocabulary tiles in float32, so memory does not grow with tokens times vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from rlt_data.errors import ModelError
from rlt_data.reward.forward.linear import apply_linear
from rlt_data.reward.forward.memory import TileSize

_REAL = torch.float32
ROUND_ROWS = 64
TARGET_ROWS = 1024


@dataclass(frozen=True)
class Head:
    """The output layer: logits = transform(hidden @ weight.T + bias), then divided by the temperature.

    weight [vocabulary, hidden], bias [vocabulary] or None. `scale` multiplies the logits (Cohere,
    Granite); `softcap` bounds them to softcap * tanh(logits / softcap) (Gemma 2).
    """

    weight: Tensor
    bias: Tensor | None
    temperature: float
    scale: float = 1.0
    softcap: float | None = None

    def prepare_rows(self, hidden: Tensor) -> Tensor:
        """Fold temperature and scale into the rows, unless bias, softcap or half precision forbid it."""
        if self._folds:
            return hidden * (self.scale / self.temperature)
        return hidden

    def compute_logits(self, rows: Tensor, begin: int, end: int) -> Tensor:
        """Logits of prepared rows for vocabulary entries [begin, end), under the temperature, float32."""
        bias = self.bias[begin:end] if self.bias is not None else None
        logits = apply_linear(rows, self.weight[begin:end], bias)
        return logits if self._folds else self._transform(logits.float())

    def compute_targets(self, rows: Tensor, targets: Tensor) -> Tensor:
        """Logit of one vocabulary entry for each prepared row, summed in float32: [rows]."""
        picked = self.weight.index_select(0, targets)
        logits = (rows.float() * picked.float()).sum(dim=-1)
        if self.bias is not None:
            logits = logits + self.bias.index_select(0, targets).float()
        return logits if self._folds else self._transform(logits)

    @property
    def vocabulary(self) -> int:
        """Entries of the vocabulary, padding of the weight matrix included."""
        return int(self.weight.shape[0])

    @property
    def _folds(self) -> bool:
        return (
            self.softcap is None and self.bias is None and self.weight.dtype in (torch.float32, torch.float64)
        )

    def _transform(self, logits: Tensor) -> Tensor:
        """Scale, bound and divide float32 logits, in place to save passes over a tile."""
        if self.softcap is not None:
            logits = logits.mul_(self.scale / self.softcap).tanh_()
            return logits.mul_(self.softcap / self.temperature)
        factor = self.scale / self.temperature
        return logits if factor == 1.0 else logits.mul_(factor)


@dataclass(frozen=True)
class LogitsHead:
    """The head of a model in mode `dense`: its hidden rows are already logits."""

    vocabulary: int
    temperature: float

    def prepare_rows(self, hidden: Tensor) -> Tensor:
        """Logits under the temperature, float32."""
        return hidden.float() / self.temperature

    def compute_logits(self, rows: Tensor, begin: int, end: int) -> Tensor:
        """A copy of entries [begin, end)."""
        return rows[:, begin:end].clone()

    def compute_targets(self, rows: Tensor, targets: Tensor) -> Tensor:
        """Pick one entry of each row."""
        return rows.gather(1, targets[:, None])[:, 0]


AnyHead = Head | LogitsHead


def read_head(model: Any, temperature: float) -> Head:
    """Read the output layer of a causal language model.

    Raises `ModelError` if it is not a linear layer.
    """
    layer = model.get_output_embeddings()
    if not isinstance(layer, nn.Linear):
        raise ModelError(
            f"the output layer is {type(layer).__name__}, not a linear layer, so it has no tiles",
            where=type(model).__name__,
        )
    config = model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config
    scale = float(getattr(config, "logit_scale", None) or 1.0)
    divisor = float(getattr(config, "logits_scaling", None) or 1.0)
    softcap = getattr(config, "final_logit_softcapping", None)
    return Head(
        layer.weight.detach(),
        layer.bias.detach() if layer.bias is not None else None,
        temperature,
        scale / divisor,
        float(softcap) if softcap else None,
    )


def score_targets(hidden: Tensor, head: AnyHead, targets: Tensor, tile: TileSize) -> Tensor:
    """Log-probability of `targets` [rows] after `hidden` [rows, hidden]: [rows], float32, nats."""
    rows = head.prepare_rows(hidden)
    total = _sum_vocabulary(_pad_rows(rows), head, 0, tile)
    return _pick_targets(rows, head, targets) - total[: rows.shape[0]]


def _pick_targets(rows: Tensor, head: AnyHead, targets: Tensor) -> Tensor:
    """Logits of the targets, some rows at a time: each copies a row of the weight matrix in float32."""
    parts = zip(rows.split(TARGET_ROWS), targets.split(TARGET_ROWS), strict=True)
    return torch.cat([head.compute_targets(*part) for part in parts])


def _pad_rows(rows: Tensor) -> Tensor:
    """Pad rows to a round number: a kernel is compiled, and kept, for every number of rows."""
    return functional.pad(rows, (0, 0, 0, -rows.shape[0] % ROUND_ROWS))


def _sum_vocabulary(rows: Tensor, head: AnyHead, first: int, tile: TileSize) -> Tensor:
    """log sum exp of the logits over vocabulary entries from `first` on: [rows], float32."""
    vocabulary = head.vocabulary
    totals = rows.new_full((len(range(first, vocabulary, tile.entries)), rows.shape[0]), 0.0, dtype=_REAL)
    scratch = _Scratch()
    # Vocabulary outside, rows inside: a tile of the weight matrix is read from memory once.
    for number, begin in enumerate(range(first, vocabulary, tile.entries)):
        end = min(begin + tile.entries, vocabulary)
        for start in range(0, rows.shape[0], tile.rows):
            logits = head.compute_logits(rows[start : start + tile.rows], begin, end)
            totals[number, start : start + tile.rows] = _sum_tile(logits, scratch)
    return torch.logsumexp(totals, dim=0)


def _sum_tile(logits: Tensor, scratch: _Scratch) -> Tensor:
    """log sum exp of each row. Log-softmax is one fused pass; logsumexp is four."""
    normal = torch.log_softmax(logits, dim=-1, out=scratch.like(logits))
    return logits.amax(dim=-1) - normal.amax(dim=-1)


class _Scratch:
    """One buffer, reused for the intermediate results of all tiles."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    def like(self, tensor: Tensor) -> Tensor:
        """The buffer in the shape of `tensor`."""
        if self._buffer is None or self._buffer.numel() < tensor.numel():
            self._buffer = torch.empty_like(tensor).view(-1)
        return self._buffer[: tensor.numel()].view(tensor.shape)


@dataclass(frozen=True)
class Divergences:
    """Log-probability of the target under both models and the exact divergence: [rows], float32, nats."""

    teacher_logprobs: Tensor
    student_logprobs: Tensor
    divergences: Tensor


def score_divergences(
    teacher_hidden: Tensor,
    teacher: AnyHead,
    student_hidden: Tensor,
    student: AnyHead,
    targets: Tensor,
    tile: TileSize,
) -> Divergences:
    """Exact KL(teacher || student) over the vocabulary at each row, and both target log-probabilities.

    One pass over both heads: with logits l and partition sums Z,
    KL = sum_v p_T(v) (l_T(v) - l_S(v)) - log Z_T + log Z_S.
    If one weight matrix is padded to more entries than the other, each model is normalized over all of its
    entries, and the divergence is summed over those that both have.
    """
    count = targets.shape[0]
    left = _pad_rows(teacher.prepare_rows(teacher_hidden))
    right = _pad_rows(student.prepare_rows(student_hidden))
    shared = min(teacher.vocabulary, student.vocabulary)
    starts = range(0, shared, tile.entries)
    # By tile and row: log sum exp of teacher and student, and the mean of l_T - l_S under the teacher's tile.
    totals = left.new_full((3, len(starts), left.shape[0]), 0.0, dtype=_REAL)
    scratch = _Scratch()
    for number, begin in enumerate(starts):
        end = min(begin + tile.entries, shared)
        for start in range(0, left.shape[0], tile.rows):
            part = slice(start, start + tile.rows)
            a = teacher.compute_logits(left[part], begin, end)
            b = student.compute_logits(right[part], begin, end)
            totals[1, number, part] = _sum_tile(b, scratch)
            shares = torch.softmax(a, dim=-1, out=scratch.like(a))
            totals[0, number, part] = a.amax(dim=-1) - shares.amax(dim=-1).log()
            totals[2, number, part] = torch.linalg.vecdot(shares, a.sub_(b))
    teacher_tiles, student_tiles, means = totals
    teacher_total = torch.logsumexp(teacher_tiles, dim=0)
    student_total = torch.logsumexp(student_tiles, dim=0)
    weights = torch.exp(teacher_tiles - teacher_total)
    if teacher.vocabulary > shared:
        more = torch.logaddexp(teacher_total, _sum_vocabulary(left, teacher, shared, tile))
        weights = weights * torch.exp(teacher_total - more)
        teacher_total = more
    if student.vocabulary > shared:
        student_total = torch.logaddexp(student_total, _sum_vocabulary(right, student, shared, tile))
    divergence = (weights * means).sum(dim=0) - weights.sum(dim=0) * (teacher_total - student_total)
    return Divergences(
        _pick_targets(left[:count], teacher, targets) - teacher_total[:count],
        _pick_targets(right[:count], student, targets) - student_total[:count],
        divergence[:count].clamp_min(0.0),
    )
