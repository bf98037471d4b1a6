"""A run that lost rows and makes them anew counts each row once."""

from __future__ import annotations

from pathlib import Path

import pytest
from lake.integrity.corrupted_lake import find_files, flip_bit
from stages.runtime.counting import CountConfig, count_missing

from rlt_data.errors import UsageError
from rlt_data.lake import Lake


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("sessions", [1, 2])
def test_rows_that_a_repair_set_aside_are_not_counted(
    sessions: int, merged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLT_DATA_COMMIT_SECONDS", "0")
    before = count_missing(Lake(tmp_path), CountConfig(size=6))
    for _ in range(2):
        if merged:
            Lake(tmp_path).compact(["questions"])
        files = find_files(tmp_path / "questions")
        for file in files if merged else files[:2]:
            flip_bit(file, 8 * 300)
        lake = Lake(tmp_path)
        done = lake.repair(lake.verify())
        assert [damage.rows for damage in done.interrupted] == [6 if merged else 2]
        (run,) = lake.runs()
        assert set(run.counts) == {"tables", "lost"}
        if sessions == 2:
            left = set(lake.table("questions").to_arrow(columns=["question"])["question"].to_pylist())
            missing = [number for number in range(6) if f"{number}?" not in left]
            with pytest.raises(UsageError, match="stopped here"):
                count_missing(Lake(tmp_path), CountConfig(size=6), stop_at=missing[1])
        after = count_missing(Lake(tmp_path), CountConfig(size=6))
        assert after.status == "finished"
        numbers = ("rows_in", "rows_out", "tokens", "truncated_share", "tables", "extra")
        assert [getattr(after, name) for name in numbers] == [getattr(before, name) for name in numbers]
        assert Lake(tmp_path).runs()[0].counts["tokens"] == before.tokens
        assert Lake(tmp_path).check() == []
        if merged:
            break
