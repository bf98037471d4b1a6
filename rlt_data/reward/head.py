"""From hidden states to token log-probabilities and exact divergences, a tile at a time.

No logits beyond one tile (rows x vocabulary entries) are ever held: log-sum-exp and the divergence are
accumulated over vocabulary tiles in float32 with a running maximum, so memory does not depend on how
many tokens there are times how many words the vocabulary has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlt_data.errors import ModelError
from rlt_data.reward.linear import apply_linear


@dataclass(frozen=True)
class TileSize:
    """Rows and vocabulary entries of one tile of logits."""

    rows: int = 256
    entries: int = 4096


@dataclass(frozen=True)
class Head:
    """The output layer: logits = transform(hidden @ weight.T + bias), then divided by the temperature.

    weight [vocabulary, hidden], bias [vocabulary] or None. `scale` multiplies the logits (Cohere,
    Granite); `softcap` squashes them to softcap * tanh(logits / softcap) (Gemma 2).
    """

    weight: Tensor
    bias: Tensor | None
    temperature: float
    scale: float = 1.0
    softcap: float | None = None

    def prepare_rows(self, hidden: Tensor) -> Tensor:
        """Fold temperature and scale into float32 rows, where that is exact up to rounding."""
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
    def _folds(self) -> bool:
        return (
            self.softcap is None and self.bias is None and self.weight.dtype in (torch.float32, torch.float64)
        )

    def _transform(self, logits: Tensor) -> Tensor:
        logits = logits * self.scale
        if self.softcap is not None:
            logits = torch.tanh(logits / self.softcap) * self.softcap
        return logits / self.temperature


def read_head(model: Any, temperature: float) -> Head:
    """Read the output layer of a causal language model.

    Raises `ModelError` where it is no plain linear layer.
    """
    layer = model.get_output_embeddings()
    if not isinstance(layer, nn.Linear):
        raise ModelError(
            f"the output layer is {type(layer).__name__}, not a linear layer, and cannot be cut into tiles",
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


def score_targets(hidden: Tensor, head: Head, targets: Tensor, tile: TileSize) -> Tensor:
    """Log-probability of `targets` [rows] after `hidden` [rows, hidden]: [rows], float32, nats."""
    parts = []
    for begin in range(0, hidden.shape[0], tile.rows):
        rows = head.prepare_rows(hidden[begin : begin + tile.rows])
        total = _sum_vocabulary(rows, head, tile)
        parts.append(head.compute_targets(rows, targets[begin : begin + tile.rows]) - total)
    return torch.cat(parts) if parts else hidden.new_zeros(0, dtype=torch.float32)


def _sum_vocabulary(rows: Tensor, head: Head, tile: TileSize) -> Tensor:
    """log sum exp of the logits over the whole vocabulary: [rows], float32."""
    return torch.logsumexp(torch.stack(_sum_tiles(rows, head, 0, tile)), dim=0)


def _sum_tiles(rows: Tensor, head: Head, first: int, tile: TileSize) -> list[Tensor]:
    """log sum exp of each tile of the vocabulary from entry `first` on: [rows] each, float32."""
    vocabulary = head.weight.shape[0]
    return [
        torch.logsumexp(head.compute_logits(rows, begin, min(begin + tile.entries, vocabulary)), dim=-1)
        for begin in range(first, vocabulary, tile.entries)
    ]


@dataclass(frozen=True)
class Divergences:
    """Per row, float32, nats: both models' log-probability of the target, and the exact divergence."""

    teacher_logprobs: Tensor
    student_logprobs: Tensor
    divergences: Tensor


def score_divergences(
    teacher_hidden: Tensor,
    teacher: Head,
    student_hidden: Tensor,
    student: Head,
    targets: Tensor,
    tile: TileSize,
) -> Divergences:
    """Exact KL(teacher || student) over the vocabulary at each row, and both target log-probabilities.

    One pass over both heads: with Z the partition sums,
    KL = sum_v p_T(v) (l_T(v) - l_S(v)) - log Z_T + log Z_S.
    Where one weight matrix is padded to more entries than the other, each model's own normalisation runs
    over all of its entries, and the divergence over those that both have.
    """
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for begin in range(0, targets.shape[0], tile.rows):
        stop = begin + tile.rows
        left = teacher.prepare_rows(teacher_hidden[begin:stop])
        right = student.prepare_rows(student_hidden[begin:stop])
        parts.append(_compare_rows(left, teacher, right, student, targets[begin:stop], tile))
    if not parts:
        empty = teacher_hidden.new_zeros(0, dtype=torch.float32)
        return Divergences(empty, empty, empty)
    teacher_side, student_side, divergences = (torch.cat(column) for column in zip(*parts, strict=True))
    return Divergences(teacher_side, student_side, divergences)


def _compare_rows(
    left: Tensor, teacher: Head, right: Tensor, student: Head, targets: Tensor, tile: TileSize
) -> tuple[Tensor, Tensor, Tensor]:
    shared = min(teacher.weight.shape[0], student.weight.shape[0])
    teacher_totals: list[Tensor] = []
    student_totals: list[Tensor] = []
    means: list[Tensor] = []
    for begin in range(0, shared, tile.entries):
        end = min(begin + tile.entries, shared)
        a = teacher.compute_logits(left, begin, end)
        b = student.compute_logits(right, begin, end)
        total = torch.logsumexp(a, dim=-1)
        teacher_totals.append(total)
        student_totals.append(torch.logsumexp(b, dim=-1))
        # Mean of l_T - l_S under the teacher restricted to this tile.
        means.append((torch.exp(a - total[:, None]) * (a - b)).sum(dim=-1))
    tile_totals = torch.stack(teacher_totals)
    teacher_totals += _sum_tiles(left, teacher, shared, tile)
    student_totals += _sum_tiles(right, student, shared, tile)
    teacher_total = torch.logsumexp(torch.stack(teacher_totals), dim=0)
    student_total = torch.logsumexp(torch.stack(student_totals), dim=0)
    weights = torch.exp(tile_totals - teacher_total)
    divergence = (weights * torch.stack(means)).sum(dim=0)
    divergence -= weights.sum(dim=0) * (teacher_total - student_total)
    return (
        teacher.compute_targets(left, targets) - teacher_total,
        student.compute_targets(right, targets) - student_total,
        divergence.clamp_min(0.0),
    )
