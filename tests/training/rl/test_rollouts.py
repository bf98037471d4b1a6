"""Rows of rollouts where a resumed training samples other completions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from opened_run import open_run

from rlt_data.lake import Lake
from rlt_data.training.rl.config import GrpoConfig
from rlt_data.training.rl.rollouts import RolloutRecorder, count_earlier_rows


class KilledError(Exception):
    """Simulates the end of a process."""


def sample(text: str, group: int) -> list[dict[str, Any]]:
    """Two completions of one group."""
    same = {"question_id": "q", "step": group, "group_index": group, "prompt_tokens": 3, "advantage": 0.0}
    return [
        {
            **same,
            "sample_index": i,
            "completion_ids": [ord(c) for c in f"{text}{i}"],
            "truncated": False,
            "scored": None,
        }
        for i in range(2)
    ]


def test_repeated_samples_are_in_groups_of_their_own(tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    config = GrpoConfig(model="t", students=("s",), output="o")

    def train(*texts: str) -> int:
        with open_run(lake, "grpo", config, inputs=(), outputs=("rollouts",)) as run:
            earlier = count_earlier_rows(run)
            recorder = RolloutRecorder(
                run, decode=lambda ids: "".join(map(chr, ids)), policy="p", earlier_rows=earlier
            )
            for group, text in enumerate(texts):
                recorder.record(sample(text, group))
            run.flush()
            if len(texts) < 3:
                raise KilledError
        return earlier

    with pytest.raises(KilledError):
        train("one", "two")
    assert train("one", "new", "last") == 4
    rows = lake.table("rollouts").scan().collect()
    # Equal draws are one row; the others make a group of their own, so that no group has more than its size.
    assert rows.height == 8
    sizes = rows.group_by("step", "group_id").len().sort("step", "len")
    assert sizes.select("step", "len").rows() == [(0, 2), (1, 2), (1, 2), (2, 2)]
    assert rows.filter(pl.col("step") == 1)["completion"].n_unique() == 4
