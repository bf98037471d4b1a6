"""Tokenized examples in flat arrays: what all processes of a training hold, as the dataset that TRL takes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from rlt_data.errors import StageStoppedError, require_module
from rlt_data.training.sft.examples import IGNORED, SupervisedExample


@dataclass(frozen=True)
class TokenizedExamples:
    """Token ids and labels of all examples, one after the other.

    Example i is from `ends[i - 1]` (0 for the first) to `ends[i]`. `token_ids` and `labels` are int32,
    `ends` is int64; a label is its token id where there is loss and `IGNORED` elsewhere.
    """

    token_ids: np.ndarray
    labels: np.ndarray
    ends: np.ndarray

    @classmethod
    def collect(cls, examples: Iterable[SupervisedExample]) -> TokenizedExamples:
        """Collect tokens and labels of examples in their order."""
        return cls.join(make_arrays(example) for example in examples)

    @classmethod
    def join(cls, arrays: Iterable[tuple[np.ndarray, np.ndarray]]) -> TokenizedExamples:
        """Join token ids and labels of examples in their order, as `make_arrays` returns them."""
        tokens: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        for ids, marks in arrays:
            tokens.append(ids)
            labels.append(marks)
        lengths = [len(ids) for ids in tokens]
        nothing = np.empty(0, dtype=np.int32)
        return cls(
            np.concatenate([nothing, *tokens]),
            np.concatenate([nothing, *labels]),
            np.cumsum(lengths, dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.ends)

    @property
    def lengths(self) -> np.ndarray:
        """The number of tokens of each example, as int64."""
        return np.diff(self.ends, prepend=0)

    def select(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return token ids and labels of one example."""
        begin, end = self.ends[index] - self.lengths[index], self.ends[index]
        return self.token_ids[begin:end], self.labels[begin:end]

    def make_dataset(self) -> Any:
        """Make a `datasets.Dataset` with the columns input_ids and labels."""
        datasets = require_module("datasets", "train")
        offsets = pa.array(np.concatenate([[0], self.ends]), type=pa.int64())
        columns = {
            "input_ids": pa.LargeListArray.from_arrays(offsets, pa.array(self.token_ids)),
            "labels": pa.LargeListArray.from_arrays(offsets, pa.array(self.labels)),
        }
        return datasets.Dataset(pa.table(columns))

    def make_packed_dataset(self, budget: int) -> Any:
        """Pack the examples into rows of at most `budget` tokens, whole; adds the column seq_lengths.

        The order depends on the lengths only. Raises `StageStoppedError` where packing would lose a token or
        split an example, as it would with one that is longer than the budget.
        """
        data_utils = require_module("trl.data_utils", "train")
        datasets = require_module("datasets", "train")
        bars = datasets.are_progress_bars_disabled()
        datasets.disable_progress_bars()
        try:
            packed = data_utils.pack_dataset(self.make_dataset(), max(budget, 1), "bfd")
        finally:
            if not bars:
                datasets.enable_progress_bars()
        found = [length for row in packed["seq_lengths"] for length in row]
        if sorted(found) != sorted(self.lengths.tolist()):
            raise StageStoppedError(
                "TRL's packing truncates or splits examples",
                where=f"{len(self)} of {len(self.token_ids)} tokens became {len(found)} of {sum(found)}",
                remedy="set sft.packing to false",
            )
        return packed

    def find_extremes(self) -> Sequence[int]:
        """Return the indices of the shortest and the longest example."""
        return int(self.lengths.argmin()), int(self.lengths.argmax())


def make_arrays(example: SupervisedExample) -> tuple[np.ndarray, np.ndarray]:
    """Return token ids and labels of an example as int32."""
    return np.asarray(example.token_ids, dtype=np.int32), np.asarray(example.labels, dtype=np.int32)


def make_filler(token_id: int, *, packed: bool) -> dict[str, list[int]]:
    """Make a row without labels, which fills the last batch of an epoch in several processes."""
    row = {"input_ids": [token_id, token_id], "labels": [IGNORED, IGNORED]}
    return {**row, "seq_lengths": [2]} if packed else row
